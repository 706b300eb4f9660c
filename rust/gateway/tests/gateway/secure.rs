//! TLS for scripted peers, by rustls' buffered connections.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proxyproto_gateway::{CertificateFiles, TlsOptions, TlsServer};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{Peer, soon};

/// A folder with an authority, a server's certificate for `localhost` and a device's; it goes with the value.
pub(crate) struct Authority {
    folder: PathBuf,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("proxyproto-gateway-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        for (file, names, common_name) in
            [("server.pem", vec!["localhost".into()], "s"), ("device.pem", vec![], "device-7")]
        {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, common_name);
            let certificate = params.signed_by(&key, &issuer).unwrap();
            fs::write(folder.join(file), certificate.pem() + &key.serialize_pem()).unwrap();
        }
        Self { folder, certificate: issuer.der().clone() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn pair(&self, name: &str) -> CertificateFiles {
        CertificateFiles { certfile: self.path(name), keyfile: None }
    }

    /// What a listener needs.
    pub(crate) fn server(&self, change: impl FnOnce(&mut TlsOptions)) -> Arc<TlsServer> {
        let mut options = TlsOptions::default();
        options.certificate = Some(self.pair("server.pem"));
        change(&mut options);
        Arc::new(TlsServer::new(&options).unwrap())
    }

    fn read(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let pem = fs::read(self.path(name)).unwrap();
        let chain = CertificateDer::pem_slice_iter(&pem).map(Result::unwrap).collect();
        (chain, PrivateKeyDer::from_pem_slice(&pem).unwrap())
    }

    /// A client of TLS on a connection that has been made, after its handshake.
    pub(crate) async fn connect(&self, peer: Peer, certificate: Option<&str>) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = self.read(name);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Secure::open(peer, connection.into()).await
    }

    /// The same as a server.
    pub(crate) async fn accept(&self, peer: Peer) -> Secure {
        let (chain, key) = self.read("server.pem");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        Secure::open(peer, connection.into()).await
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A peer that speaks TLS.
pub(crate) struct Secure {
    peer: Peer,
    connection: Connection,
}

impl Secure {
    async fn open(peer: Peer, connection: Connection) -> Self {
        let mut secure = Self { peer, connection };
        while secure.connection.is_handshaking() {
            secure.flush().await;
            if secure.connection.is_handshaking() && !secure.receive().await {
                break;
            }
        }
        secure.flush().await;
        secure
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.connection.writer().write_all(bytes).unwrap();
        self.flush().await;
    }

    pub(crate) async fn expect(&mut self, expected: &[u8]) {
        let mut read = vec![0; expected.len()];
        let mut at = 0;
        while at < read.len() {
            match self.connection.reader().read(&mut read[at..]) {
                Ok(count) => at += count,
                Err(_) => assert!(self.receive().await, "the end, after {:?}", &read[..at]),
            }
        }
        assert_eq!(read.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    /// Reads to the end, which must be said and not only come.
    pub(crate) async fn expect_goodbye(&mut self) {
        while self.receive().await {}
        assert_eq!(self.connection.reader().read(&mut [0]).unwrap(), 0, "close_notify");
    }

    /// Reads to the end, before which nothing comes.
    pub(crate) async fn expect_nothing(&mut self) {
        while self.receive().await {}
        assert!(self.connection.reader().read(&mut [0]).is_err());
    }

    pub(crate) async fn say_goodbye(&mut self) {
        self.connection.send_close_notify();
        self.flush().await;
    }

    async fn flush(&mut self) {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).unwrap();
        }
        // The other side may have refused it already.
        let _ = self.peer.0.write_all(&bytes).await;
    }

    /// Reads once; false at the end.
    async fn receive(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let Ok(count @ 1..) = soon(self.peer.0.read(&mut bytes)).await else { return false };
        let mut unread = &bytes[..count];
        while !unread.is_empty() {
            self.connection.read_tls(&mut unread).unwrap();
            if self.connection.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }
}
