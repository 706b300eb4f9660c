//! The names of options in texts. The face that shows a text chooses them, since its readers know only its own names.

/// An option that a text names, or a value of one.
///
/// The enum is exhaustive on purpose: a new setting needs a name in every face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// The list of the clients that are served.
    Allow,
    /// How long a connection may take to send its header.
    HeaderTimeout,
    /// How many connections of clients may be open.
    MaxConnections,
    /// How many connections of one client may be open.
    MaxConnectionsPerClient,
    /// The length of the longest header.
    MaxHeaderSize,
    /// How many connections may wait for their header.
    MaxPending,
    /// The value "no connection begins with a header".
    ProxyProtocolOff,
    /// The value "a connection may begin with a header".
    ProxyProtocolOptional,
    /// The value "every connection begins with a header".
    ProxyProtocolRequired,
    /// How many connections one client may open per second.
    RatePerClient,
    /// Whether only clients with a verified certificate are served.
    RequireClientCert,
    /// Whether only clients that used TLS are served.
    RequireTls,
    /// The list of the trusted proxies.
    Trusted,
    /// The value "peers that are not trusted are served as ordinary clients".
    UntrustedDirect,
    /// The versions of the protocol that are allowed.
    Versions,
}

/// Gives the name of a setting in a text. [`Setting::in_rust`] gives this crate's own names.
pub type Wording = fn(Setting) -> &'static str;

impl Setting {
    /// All settings.
    pub const ALL: &'static [Self] = &[
        Self::Allow,
        Self::HeaderTimeout,
        Self::MaxConnections,
        Self::MaxConnectionsPerClient,
        Self::MaxHeaderSize,
        Self::MaxPending,
        Self::ProxyProtocolOff,
        Self::ProxyProtocolOptional,
        Self::ProxyProtocolRequired,
        Self::RatePerClient,
        Self::RequireClientCert,
        Self::RequireTls,
        Self::Trusted,
        Self::UntrustedDirect,
        Self::Versions,
    ];

    /// The name in this crate, such as a field of [`Options`](crate::Options).
    #[must_use]
    pub const fn in_rust(self) -> &'static str {
        match self {
            Self::Allow => "Options::allow",
            Self::HeaderTimeout => "Options::header_timeout",
            Self::MaxConnections => "Options::max_connections",
            Self::MaxConnectionsPerClient => "PerClient::max_connections",
            Self::MaxHeaderSize => "codec::Options::max_header_size",
            Self::MaxPending => "Options::max_pending",
            Self::ProxyProtocolOff => "ProxyProtocol::Off",
            Self::ProxyProtocolOptional => "ProxyProtocol::Optional",
            Self::ProxyProtocolRequired => "ProxyProtocol::Required",
            Self::RatePerClient => "PerClient::rate",
            Self::RequireClientCert => "Options::require_client_cert",
            Self::RequireTls => "Options::require_tls",
            Self::Trusted => "Options::trusted",
            Self::UntrustedDirect => "Untrusted::Direct",
            Self::Versions => "codec::Options::versions",
        }
    }
}
