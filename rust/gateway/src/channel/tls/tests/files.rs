//! The certificates, keys and lists of a test, in a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm,
};

use super::super::{CertificateFiles, ClientCertificate, TlsClientOptions, TlsOptions};

/// A folder with an authority, a server and a device of its own; it goes with the value.
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    pub(super) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("proxyproto-tls-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = Self { folder, authority };
        files.write("ca.pem", &files.authority.pem());
        files.issue("server.pem", &["localhost", "*.example.org"], &rcgen::PKCS_ECDSA_P256_SHA256, |_| ());
        files.issue("device.pem", &[], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
            params.distinguished_name.push(DnType::CommonName, "device-7");
        });
        files
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A certificate with its key.
    pub(super) fn issue(
        &self,
        file: &str,
        names: &[&str],
        kind: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        self.write(file, &(certificate.pem() + &key.serialize_pem()));
    }

    pub(super) fn pair(&self, name: &str) -> CertificateFiles {
        CertificateFiles { certfile: self.path(name), keyfile: None }
    }

    pub(super) fn options(&self) -> TlsOptions {
        TlsOptions { certificate: Some(self.pair("server.pem")), ..TlsOptions::default() }
    }

    pub(super) fn asking(&self, client_certificate: ClientCertificate) -> TlsOptions {
        TlsOptions { cafile: Some(self.path("ca.pem")), client_certificate, ..self.options() }
    }

    pub(super) fn client_options(&self) -> TlsClientOptions {
        TlsClientOptions { cafile: Some(self.path("ca.pem")), ..TlsClientOptions::default() }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
