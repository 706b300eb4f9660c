//! Which of our certificates a client gets.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::{DnsName, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// The certificates of a listener.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Serves every name that none of `named` covers.
    pub(super) default: Option<Arc<CertifiedKey>>,
    /// Each serves the names that it contains.
    pub(super) named: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Whether a client that asks for this name can be served.
    pub(super) fn serve(&self, name: Option<&str>) -> bool {
        self.default.is_some() || name.is_none_or(|name| self.named.iter().any(|key| is_for(key, name)))
    }

    /// Chooses among the certificates for this name. The first whose signatures the client can check wins; if it can check
    /// none, the first.
    pub(super) fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let named: Vec<_> = match name {
            Some(name) => self.named.iter().filter(|key| is_for(key, name)).collect(),
            None if self.default.is_some() => Vec::new(),
            None => self.named.iter().collect(),
        };
        let all = || named.iter().copied().chain(&self.default);
        all().find(|key| key.key.choose_scheme(schemes).is_some()).or_else(|| all().next()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

/// The host names that a certificate contains.
pub(super) fn names_of(key: &CertifiedKey) -> Vec<String> {
    let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
    certificate
        .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Whether the certificate covers this name. It is parsed each time, which takes about 1 of a handshake's 250 us.
fn is_for(key: &CertifiedKey, name: &str) -> bool {
    let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
    match (certificate, DnsName::try_from(name)) {
        (Some(certificate), Ok(name)) => {
            certificate.verify_is_valid_for_subject_name(&ServerName::DnsName(name)).is_ok()
        }
        _ => false,
    }
}
