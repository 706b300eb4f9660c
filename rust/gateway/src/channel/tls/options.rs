//! The options of TLS towards clients.

use std::path::PathBuf;

/// A certificate and its key, in files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The file of the certificate, followed by the chain up to the authority.
    pub certfile: PathBuf,
    /// The file of the key; `None` if it is in the same file.
    pub keyfile: Option<PathBuf>,
}

/// The options of [`TlsServer`](super::TlsServer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsOptions {
    /// The certificate and its key. It serves every name that none of `certificates` covers.
    pub certificate: Option<CertificateFiles>,
    /// More certificates. Each serves the names that it contains. Without [`certificate`](Self::certificate), a client that
    /// asks for another name is refused, and a client that asks for no name gets the first.
    pub certificates: Vec<CertificateFiles>,
    /// The authorities whose client certificates are believed.
    pub cafile: Option<PathBuf>,
    /// Their revocation lists. If it is given, each authority must have a list that has not expired.
    pub crlfile: Option<PathBuf>,
    /// Whether a client needs a certificate.
    pub client_certificate: ClientCertificate,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// The cipher suites by their names in OpenSSL, with colons between them. A version of TLS of which none is named keeps
    /// all of its own.
    pub ciphers: Option<String>,
    /// The application protocols, the best first. A client that offers none of them is served without.
    pub alpn: Vec<String>,
    /// OpenSSL's stricter checks of client certificates. rustls has no such switch: `Some(true)` is refused.
    pub strict_x509: Option<bool>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            certificate: None,
            certificates: Vec::new(),
            cafile: None,
            crlfile: None,
            client_certificate: ClientCertificate::default(),
            min_version: TlsVersion::default(),
            ciphers: None,
            alpn: vec!["mqtt".into()],
            strict_x509: None,
        }
    }
}

/// Whether a client needs a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It is not asked for one.
    #[default]
    None,
    /// It may show one, which must then be good.
    Optional,
    /// It must show one.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}
