//! TLS towards servers.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

use super::records::Records;
use super::{CertificateFiles, TlsError, TlsVersion, ciphers, files, outcome};
use crate::channel::{Channel, ChannelFactory, ChannelFault, Flow, Remote, Stage};
use crate::facts::Facts;

/// The options of [`TlsClient`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsClientOptions {
    /// The authorities whose certificates are believed.
    pub cafile: Option<PathBuf>,
    /// The name that the server's certificate must have; `None`: the host as it is configured.
    pub server_name: Option<String>,
    /// Our own certificate and its key.
    pub certificate: Option<CertificateFiles>,
    /// The lowest version.
    pub min_version: TlsVersion,
    /// The cipher suites, as in [`TlsOptions`](super::TlsOptions).
    pub ciphers: Option<String>,
    /// Whether any certificate of the server will do. Whoever stands in between can then read and change everything.
    pub insecure: bool,
}

/// Speaks TLS with servers.
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl TlsClient {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// As of [`TlsServer::new`](super::TlsServer::new); or there is neither a `cafile` nor `insecure`.
    pub fn new(options: &TlsClientOptions) -> Result<Self, TlsError> {
        let provider = Arc::new(ciphers::provider(options.ciphers.as_deref())?);
        let name = options.server_name.clone().map(|name| {
            let problem = format!("{name:?} is neither a host name nor an address");
            ServerName::try_from(name).map_err(|_| TlsError::new("server_name", problem))
        });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(ciphers::versions(options.min_version))
            .map_err(|error| TlsError::new("ciphers", error.to_string()))?;
        let builder = match &options.cafile {
            _ if options.insecure => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(&provider))))
            }
            Some(path) => builder.with_root_certificates(files::authorities("cafile", path)?),
            None => return Err(TlsError::new("cafile", "is needed, or insecure: true")),
        };
        let config = match &options.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let key = files::certified_key("", files, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        Ok(Self { config: Arc::new(config), name: name.transpose()? })
    }

    fn connect(&self, remote: Remote<'_>) -> Result<Records<UnbufferedClientConnection>, String> {
        let name = match (&self.name, remote) {
            (Some(name), _) => name.clone(),
            (None, Remote::Server(server)) => host_of(&server.configured)
                .ok_or_else(|| format!("TLS: server_name is needed for {}", server.configured))?,
            (None, Remote::Client(_)) => return Err("TLS: server_name is needed".into()),
        };
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), name);
        connection.map(Records::new).map_err(|error| outcome::in_words(&error))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ChannelFactory for TlsClient {
    fn open(&self, remote: Remote<'_>) -> Box<dyn Channel> {
        Box::new(TlsClientChannel { records: self.connect(remote).map(Box::new) })
    }
}

/// The host in `host:port`. A UNIX socket has none.
fn host_of(server: &str) -> Option<ServerName<'static>> {
    if server.starts_with("unix:") {
        return None;
    }
    let (host, _) = server.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => ServerName::try_from(host.to_owned()).ok(),
    }
}

/// The TLS of one connection to a server.
struct TlsClientChannel {
    /// Or why there is none.
    records: Result<Box<Records<UnbufferedClientConnection>>, String>,
}

impl TlsClientChannel {
    fn records(&mut self) -> Result<&mut Records<UnbufferedClientConnection>, ChannelFault> {
        self.records.as_deref_mut().map_err(|detail| ChannelFault::new(detail.clone()))
    }
}

impl Channel for TlsClientChannel {
    fn stage(&self) -> Stage {
        match &self.records {
            Ok(records) if !records.state().is_handshaking() => Stage::Open,
            _ => Stage::Tls,
        }
    }

    fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        self.records()?.encode(&[], wire).map_err(|error| ChannelFault::new(outcome::in_words(&error)))
    }

    fn decode(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        self.records()?
            .decode(received, mqtt, answer)
            .map_err(|error| ChannelFault::new(outcome::in_words(&error)))
    }

    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        self.records()?.encode(mqtt, wire).map_err(|error| ChannelFault::new(outcome::in_words(&error)))
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        if let Ok(records) = &mut self.records {
            records.close(wire);
        }
    }

    fn facts(&mut self) -> Facts {
        Facts::default()
    }
}

/// Takes any certificate, as `insecure` says. That the peer has its key is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
