//! TLS towards clients.

use std::fmt;
use std::mem;
use std::sync::Arc;

use proxyproto_mqtt::Start;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, ClientHello, UnbufferedServerConnection, WebPkiClientVerifier};

use super::common_name::common_names;
use super::names::{Certificates, names_of};
use super::records::Records;
use super::{CertificateFiles, ClientCertificate, TlsError, TlsOptions, ciphers, files, outcome};
use crate::channel::{Channel, ChannelFactory, ChannelFault, Flow, Remote, Stage};
use crate::facts::{Facts, TlsFacts};

/// Speaks TLS with the clients of a listener. It is immutable: to reload certificates, give the listener a new one, and
/// connections that are open keep theirs.
pub struct TlsServer {
    config: Arc<Config>,
}

impl TlsServer {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A file is missing, unreadable, or holds something else; the key is another certificate's; or the options are
    /// OpenSSL's alone.
    pub fn new(options: &TlsOptions) -> Result<Self, TlsError> {
        let provider = Arc::new(ciphers::provider(options.ciphers.as_deref())?);
        if options.strict_x509 == Some(true) {
            let problem = "rustls has no such checks, and does without what they look at. Leave it out";
            return Err(TlsError::new("strict_x509", problem));
        }
        let certificates = Arc::new(certificates(options, &provider)?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(ciphers::versions(options.min_version))
            .map_err(|error| TlsError::new("ciphers", error.to_string()))?;
        let builder = match client_verifier(options, &provider)? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&certificates) as _);
        config.ticketer = Ticketer::new().map_err(|error| TlsError::new("tls", error.to_string()))?;
        // A device resumes one session at a time.
        config.send_tls13_tickets = 1;
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let with_alpn = Arc::new(config);
        Ok(Self { config: Arc::new(Config { certificates, with_alpn, without_alpn }) })
    }

    pub(crate) fn channel(&self) -> TlsChannel {
        TlsChannel {
            config: Arc::clone(&self.config),
            state: State::Hello { acceptor: Box::default(), received: Vec::new() },
            name: None,
        }
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("certificates", &self.config.certificates).finish_non_exhaustive()
    }
}

impl ChannelFactory for TlsServer {
    fn open(&self, _remote: Remote<'_>) -> Box<dyn Channel> {
        Box::new(self.channel())
    }
}

struct Config {
    certificates: Arc<Certificates>,
    with_alpn: Arc<ServerConfig>,
    /// For clients that offer protocols, but none of ours. rustls would refuse them, and OpenSSL serves them.
    without_alpn: Arc<ServerConfig>,
}

impl Config {
    fn of(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = &self.with_alpn.alpn_protocols;
        let is_shared =
            hello.alpn().is_some_and(|mut theirs| theirs.any(|name| ours.iter().any(|our| our == name)));
        Arc::clone(if is_shared { &self.with_alpn } else { &self.without_alpn })
    }
}

fn certificates(options: &TlsOptions, provider: &CryptoProvider) -> Result<Certificates, TlsError> {
    let read =
        |prefix: &str, files: &CertificateFiles| files::certified_key(prefix, files, provider).map(Arc::new);
    let default = options.certificate.as_ref().map(|files| read("", files)).transpose()?;
    let mut named = Vec::new();
    for (at, files) in options.certificates.iter().enumerate() {
        let key = read(&format!("certificates[{at}]."), files)?;
        if names_of(&key).is_empty() {
            let problem = format!(
                "{}: no host name in it (subjectAltName), so that no client can ask for it",
                files.certfile.display()
            );
            return Err(TlsError::new(format!("certificates[{at}].certfile"), problem));
        }
        named.push(key);
    }
    if default.is_none() && named.is_empty() {
        return Err(TlsError::new("certfile", "is needed"));
    }
    Ok(Certificates { default, named })
}

fn client_verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let authorities = options.cafile.as_deref().map(|path| files::authorities("cafile", path)).transpose()?;
    let lists =
        options.crlfile.as_deref().map(|path| files::revocation_lists("crlfile", path)).transpose()?;
    let word = match options.client_certificate {
        ClientCertificate::None => return Ok(None),
        ClientCertificate::Optional => "optional",
        ClientCertificate::Required => "required",
    };
    let Some(authorities) = authorities else {
        return Err(TlsError::new("cafile", format!("is needed for client_certificate: {word}")));
    };
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider));
    if let Some(lists) = lists {
        // As OpenSSL checks them: the client's own certificate alone, against a list of its issuer that has not expired.
        builder = builder.with_crls(lists).only_check_end_entity_revocation().enforce_revocation_expiration();
    }
    if options.client_certificate == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| TlsError::new("crlfile", error.to_string()))?;
    Ok(Some(verifier))
}

/// One client's TLS.
pub(crate) struct TlsChannel {
    config: Arc<Config>,
    state: State,
    /// The host name that the client asks for.
    name: Option<Box<str>>,
}

enum State {
    /// The `ClientHello` is incomplete. It is read first, because the options for the answer depend on it.
    Hello {
        acceptor: Box<Acceptor>,
        received: Vec<u8>,
    },
    Open(Box<Records<UnbufferedServerConnection>>),
    Failed,
}

impl TlsChannel {
    /// Reads the `ClientHello`. Returns all received bytes once it is complete.
    fn read_hello(&mut self, more: &[u8], answer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, ChannelFault> {
        let State::Hello { acceptor, received } = &mut self.state else { return Ok(None) };
        received.extend_from_slice(more);
        if received.first().is_some_and(|first| *first != HANDSHAKE) {
            return Err(ChannelFault::new(format!("wrong-version: not TLS but {}", Start::of(received))));
        }
        let mut unread = more;
        loop {
            let count = acceptor
                .read_tls(&mut unread)
                .map_err(|error| ChannelFault::new(format!("closed: {error}")))?;
            let accepted = acceptor.accept().map_err(|(error, mut alert)| {
                // To a vector, it cannot fail.
                let _ = alert.write_all(answer);
                ChannelFault::new(outcome::of_client(&error))
            })?;
            let Some(accepted) = accepted else {
                if count == 0 || unread.is_empty() {
                    return Ok(None);
                }
                continue;
            };
            let hello = accepted.client_hello();
            self.name = hello.server_name().map(Into::into);
            if !self.config.certificates.serve(self.name.as_deref()) {
                answer.extend_from_slice(UNRECOGNIZED_NAME);
                return Err(ChannelFault::new(format!(
                    "unknown-sni: {}",
                    self.name.as_deref().unwrap_or_default()
                )));
            }
            let opened = UnbufferedServerConnection::new(self.config.of(&hello))
                .map_err(|error| ChannelFault::new(outcome::of_client(&error)))?;
            let received = mem::take(received);
            self.state = State::Open(Box::new(Records::new(opened)));
            return Ok(Some(received));
        }
    }

    fn decode_records(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        let State::Open(records) = &mut self.state else { return Ok(Flow::Ended) };
        let was_open = !records.state().is_handshaking();
        records.decode(received, mqtt, answer).map_err(|error| {
            ChannelFault::new(if was_open { outcome::in_words(&error) } else { outcome::of_client(&error) })
        })
    }
}

impl Channel for TlsChannel {
    fn stage(&self) -> Stage {
        match &self.state {
            State::Open(records) if !records.state().is_handshaking() => Stage::Open,
            _ => Stage::Tls,
        }
    }

    fn start(&mut self, _wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        Ok(())
    }

    fn decode(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        if !matches!(self.state, State::Hello { .. }) {
            return self.decode_records(received, mqtt, answer);
        }
        match self.read_hello(received, answer) {
            Ok(None) => Ok(Flow::Open),
            Ok(Some(mut received)) => self.decode_records(&mut received, mqtt, answer),
            Err(fault) => {
                self.state = State::Failed;
                Err(fault)
            }
        }
    }

    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        match &mut self.state {
            State::Open(records) => {
                records.encode(mqtt, wire).map_err(|error| ChannelFault::new(outcome::in_words(&error)))
            }
            State::Hello { .. } | State::Failed => Ok(()),
        }
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        if let State::Open(records) = &mut self.state {
            records.close(wire);
        }
    }

    fn facts(&mut self) -> Facts {
        let State::Open(records) = &self.state else { return Facts::default() };
        let state = records.state();
        let certificate =
            state.peer_certificates().and_then(<[_]>::first).filter(|_| !state.is_handshaking());
        let names = certificate.map(common_names).unwrap_or_default();
        let tls = TlsFacts {
            version: match state.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2".into(),
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3".into(),
                _ => String::new(),
            },
            cipher: state
                .negotiated_cipher_suite()
                .map_or("", |suite| ciphers::name_of(suite.suite()))
                .into(),
            sni: self.name.as_deref().map(str::to_owned),
            alpn: state.alpn_protocol().map(<[u8]>::to_vec),
            certificate: certificate.map(|certificate| certificate.to_vec()),
            has_more_names: names.len() > 1,
            common_name: names.into_iter().next(),
        };
        Facts { tls: Some(tls), ..Facts::default() }
    }
}

/// The type of the first record of TLS.
const HANDSHAKE: u8 = 0x16;
/// A fatal alert (RFC 6066, section 3), which no key protects yet.
const UNRECOGNIZED_NAME: &[u8] = b"\x15\x03\x03\0\x02\x02\x70";
