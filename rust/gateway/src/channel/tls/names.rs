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
    /// For every name that no other one is for.
    pub(super) default: Option<Arc<CertifiedKey>>,
    /// Each for the names that it holds.
    pub(super) named: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Whether a client that asks for this name can be served.
    pub(super) fn serve(&self, name: Option<&str>) -> bool {
        self.default.is_some() || name.is_none_or(|name| self.named.iter().any(|key| is_for(key, name)))
    }

    /// Of those for the name, the first whose key the client can check.
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

/// The host names in a certificate.
pub(super) fn names_of(key: &CertifiedKey) -> Vec<String> {
    let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
    certificate
        .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Parses the certificate each time, which takes about a microsecond of a handshake's 250.
fn is_for(key: &CertifiedKey, name: &str) -> bool {
    let certificate = key.cert.first().and_then(|certificate| EndEntityCert::try_from(certificate).ok());
    match (certificate, DnsName::try_from(name)) {
        (Some(certificate), Ok(name)) => {
            certificate.verify_is_valid_for_subject_name(&ServerName::DnsName(name)).is_ok()
        }
        _ => false,
    }
}
