//! A client and a server without a socket, and a client of rustls with options that ours does not have.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName as HostName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::super::{TlsClient, TlsClientOptions, TlsServer};
use super::files::Files;
use crate::channel::{Channel, ChannelFactory, ChannelFault, Flow, Remote, Stage};
use crate::facts::Facts;
use crate::server_name::ServerName;

pub(super) fn server_name(configured: &str) -> ServerName {
    ServerName { configured: configured.into(), address: "127.0.0.1:8883".into() }
}

pub(super) fn client_of(options: &TlsClientOptions, server: &str) -> Box<dyn Channel> {
    TlsClient::new(options).unwrap().open(Remote::Server(&server_name(server)))
}

/// Two channels and what is on the way between them.
pub(super) struct Pair {
    pub(super) client: Box<dyn Channel>,
    pub(super) server: Box<dyn Channel>,
    pub(super) to_server: Vec<u8>,
    pub(super) to_client: Vec<u8>,
    pub(super) client_got: Vec<u8>,
    pub(super) server_got: Vec<u8>,
}

impl Pair {
    pub(super) fn new(client: Box<dyn Channel>, server: &TlsServer) -> Self {
        let mut pair = Self {
            client,
            server: Box::new(server.channel()),
            to_server: Vec::new(),
            to_client: Vec::new(),
            client_got: Vec::new(),
            server_got: Vec::new(),
        };
        pair.client.start(&mut pair.to_server).unwrap();
        pair.server.start(&mut pair.to_client).unwrap();
        pair
    }

    /// Carries what is on the way, in pieces of this size, until nothing is.
    pub(super) fn carry(&mut self, size: usize) -> Result<(), ChannelFault> {
        while !self.to_server.is_empty() || !self.to_client.is_empty() {
            for piece in std::mem::take(&mut self.to_server).chunks_mut(size) {
                self.server.decode(piece, &mut self.server_got, &mut self.to_client)?;
            }
            for piece in std::mem::take(&mut self.to_client).chunks_mut(size) {
                // What the client thinks of the server is seen in what it sends.
                let _ = self.client.decode(piece, &mut self.client_got, &mut self.to_server);
            }
        }
        Ok(())
    }

    pub(super) fn facts(&mut self) -> TlsFactsOf {
        let Facts { tls, .. } = self.server.facts();
        let tls = tls.unwrap();
        (tls.version, tls.cipher, tls.sni, tls.alpn, tls.common_name)
    }
}

pub(super) type TlsFactsOf = (String, String, Option<String>, Option<Vec<u8>>, Option<String>);

pub(super) fn pieces() -> impl Iterator<Item = usize> {
    [1, 2, 3, 5, 6, 7, 64, 1000, 16_389, 70_000].into_iter()
}

/// A client of TLS 1.2 alone.
pub(super) fn only_12(files: &Files) -> Box<dyn Channel> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    Box::new(Buffered::new(files, provider, |_| ()))
}

/// rustls' buffered client, with options that ours does not have.
pub(super) struct Buffered(pub(super) ClientConnection);

impl Buffered {
    pub(super) fn new(
        files: &Files,
        provider: rustls::crypto::CryptoProvider,
        change: impl FnOnce(&mut ClientConfig),
    ) -> Self {
        let config = buffered_config(files, provider, change);
        Self(ClientConnection::new(Arc::new(config), HostName::try_from("localhost").unwrap()).unwrap())
    }
}

pub(super) fn buffered_config(
    files: &Files,
    provider: rustls::crypto::CryptoProvider,
    change: impl FnOnce(&mut ClientConfig),
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(files.authority.der().clone()).unwrap();
    let versions: Vec<_> = rustls::ALL_VERSIONS
        .iter()
        .copied()
        .filter(|version| {
            provider.cipher_suites.iter().any(|suite| suite.version().version == version.version)
        })
        .collect();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    change(&mut config);
    config
}

impl Channel for Buffered {
    fn stage(&self) -> Stage {
        if self.0.is_handshaking() { Stage::Tls } else { Stage::Open }
    }

    fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        self.encode(b"", wire)
    }

    fn decode(
        &mut self,
        mut received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        while !received.is_empty() {
            let mut unread = &received[..];
            let count = self.0.read_tls(&mut unread).unwrap();
            received = &mut received[count..];
            let processed = self.0.process_new_packets();
            self.encode(b"", answer)?;
            processed.map_err(|error| ChannelFault::new(error.to_string()))?;
            let mut plain = vec![0; 20_000];
            while let Ok(count @ 1..) = self.0.reader().read(&mut plain) {
                mqtt.extend_from_slice(&plain[..count]);
            }
        }
        Ok(Flow::Open)
    }

    fn encode(&mut self, mut mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        loop {
            mqtt = &mqtt[self.0.writer().write(mqtt).unwrap()..];
            while self.0.wants_write() {
                self.0.write_tls(wire).unwrap();
            }
            if mqtt.is_empty() {
                return Ok(());
            }
        }
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.encode(b"", wire).unwrap();
    }

    fn facts(&mut self) -> Facts {
        Facts::default()
    }
}
