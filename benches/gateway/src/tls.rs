//! The certificates of the relays, and a client that believes them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The key of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    P256,
    Rsa2048,
}

/// A certificate for each kind of key, in a folder that goes with this value.
pub(crate) struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    pub(crate) fn new() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("gateway-bench-{}", process::id()));
        fs::create_dir_all(&folder)?;
        let certificates = Self { folder };
        certificates.make(Key::P256, &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
        certificates.make(Key::Rsa2048, &["rsa:2048"])?;
        Ok(certificates)
    }

    /// The file of the certificate with its key.
    pub(crate) fn path(&self, key: Key) -> PathBuf {
        self.folder.join(format!("{key:?}.pem"))
    }

    fn make(&self, key: Key, kind: &[&str]) -> io::Result<()> {
        let [config, key_file, file] = ["config", "key", "certificate"].map(|name| self.folder.join(name));
        fs::write(&config, CONFIG)?;
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-batch", "-days", "2", "-newkey"]).args(kind);
        openssl.arg("-config").arg(&config).arg("-keyout").arg(&key_file).arg("-out").arg(&file);
        let made = openssl.output()?;
        if !made.status.success() {
            return Err(io::Error::other(format!("openssl: {}", made.stderr.escape_ascii())));
        }
        fs::write(self.path(key), [fs::read(file)?, fs::read(key_file)?].concat())
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A client of TLS 1.3 that resumes nothing.
pub(crate) fn connector(certificate: &Path) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config).into())
}

/// rustls believes a certificate without an authority only if it is none itself.
const CONFIG: &str = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n[name]\nCN = localhost\n\
                      [extensions]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:localhost\n";
