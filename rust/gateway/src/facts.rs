//! What the handshake of a channel has shown of the client.

use std::net::SocketAddr;

/// What the handshake of a channel has shown.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Facts {
    /// Set if TLS ends here.
    pub tls: Option<TlsFacts>,
    /// The client that a trusted proxy has named in a header of HTTP.
    pub forwarded: Option<SocketAddr>,
}

/// What a TLS handshake has shown.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsFacts {
    /// The version, such as `TLSv1.3`.
    pub version: String,
    /// The cipher, by its name in OpenSSL.
    pub cipher: String,
    /// The host name that the client has asked for.
    pub sni: Option<String>,
    /// The protocol that was negotiated.
    pub alpn: Option<Vec<u8>>,
    /// The client's certificate in DER.
    pub certificate: Option<Vec<u8>>,
    /// The first common name in it. Only a verified certificate has one here.
    pub common_name: Option<String>,
    /// Whether it has more common names. Then it does not say clearly whose it is.
    pub has_more_names: bool,
}
