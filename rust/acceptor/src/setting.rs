//! What texts call the options: the face that shows a text chooses, since its reader knows no other names.

/// An option, or a value of one, that a text tells somebody to look at.
///
/// Exhaustive on purpose: a new one needs a name in every face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// The clients that alone are served.
    Allow,
    /// How long a connection may take to show its header.
    HeaderTimeout,
    /// How many connections of clients may be open.
    MaxConnections,
    /// How many of one client.
    MaxConnectionsPerClient,
    /// The longest header.
    MaxHeaderSize,
    /// How many connections may wait for their header.
    MaxPending,
    /// That no connection begins with a header.
    ProxyProtocolOff,
    /// That a connection may begin with one.
    ProxyProtocolOptional,
    /// That every connection does.
    ProxyProtocolRequired,
    /// How many connections one client may open in a second.
    RatePerClient,
    /// That only clients are served whose certificate was verified.
    RequireClientCert,
    /// That only clients are served that used TLS.
    RequireTls,
    /// The proxies that are believed.
    Trusted,
    /// That peers that are not are served as clients.
    UntrustedDirect,
    /// The versions of the protocol that are allowed.
    Versions,
}

/// What a text calls a setting. [`Setting::in_rust`] is this crate's own.
pub type Wording = fn(Setting) -> &'static str;

impl Setting {
    /// Every one.
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

    /// As [`Options`](crate::Options) calls it.
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
