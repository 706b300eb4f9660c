//! What texts of the acceptor call the options in Python.

use proxyproto_acceptor::{Setting, Wording};

/// The names for a listener whose limits per client were given as `client_limits`, or not.
pub(crate) fn wording(has_client_limits: bool) -> Wording {
    if has_client_limits { keyword_beside_client_limits } else { keyword }
}

/// As errors about arguments call them.
pub(crate) fn argument(setting: Setting) -> &'static str {
    keyword(setting).trim_end_matches('=')
}

/// The keyword argument, or the argument with its value.
fn keyword(setting: Setting) -> &'static str {
    match setting {
        Setting::Allow => "allow=",
        Setting::HeaderTimeout => "header_timeout=",
        Setting::MaxConnections => "max_connections=",
        Setting::MaxConnectionsPerClient => "max_connections_per_client=",
        Setting::MaxHeaderSize => "max_header_size=",
        Setting::MaxPending => "max_pending=",
        Setting::ProxyProtocolOff => "proxy_protocol=\"off\"",
        Setting::ProxyProtocolOptional => "proxy_protocol=\"optional\"",
        // A text names it as the other value of the argument that it has just named.
        Setting::ProxyProtocolRequired => "\"required\"",
        Setting::RatePerClient => "max_rate_per_client=",
        Setting::RequireClientCert => "require_client_cert=",
        Setting::RequireTls => "require_tls=",
        Setting::Trusted => "trusted=",
        Setting::UntrustedDirect => "untrusted=\"direct\"",
        Setting::Versions => "versions=",
    }
}

fn keyword_beside_client_limits(setting: Setting) -> &'static str {
    match setting {
        Setting::MaxConnectionsPerClient => "max_connections= of client_limits=",
        Setting::RatePerClient => "max_rate= of client_limits=",
        other => keyword(other),
    }
}
