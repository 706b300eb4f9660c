//! The two channels, against each other and against rustls' buffered client, without a socket.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::ServerName as HostName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SignatureScheme};

use super::*;
use crate::channel::{Channel, ChannelFactory, ChannelFault, Flow, Remote, Stage};
use crate::facts::Facts;
use crate::server_name::ServerName;

/// A folder with an authority, a server and a device of its own; it goes with the value.
struct Files {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
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

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A certificate with its key.
    fn issue(
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

    fn pair(&self, name: &str) -> CertificateFiles {
        CertificateFiles { certfile: self.path(name), keyfile: None }
    }

    fn options(&self) -> TlsOptions {
        TlsOptions { certificate: Some(self.pair("server.pem")), ..TlsOptions::default() }
    }

    fn asking(&self, client_certificate: ClientCertificate) -> TlsOptions {
        TlsOptions { cafile: Some(self.path("ca.pem")), client_certificate, ..self.options() }
    }

    fn client_options(&self) -> TlsClientOptions {
        TlsClientOptions { cafile: Some(self.path("ca.pem")), ..TlsClientOptions::default() }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn server_name(configured: &str) -> ServerName {
    ServerName { configured: configured.into(), address: "127.0.0.1:8883".into() }
}

fn client_of(options: &TlsClientOptions, server: &str) -> Box<dyn Channel> {
    TlsClient::new(options).unwrap().open(Remote::Server(&server_name(server)))
}

/// Two channels and what is on the way between them.
struct Pair {
    client: Box<dyn Channel>,
    server: Box<dyn Channel>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    client_got: Vec<u8>,
    server_got: Vec<u8>,
}

impl Pair {
    fn new(client: Box<dyn Channel>, server: &TlsServer) -> Self {
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
    fn carry(&mut self, size: usize) -> Result<(), ChannelFault> {
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

    fn facts(&mut self) -> TlsFactsOf {
        let Facts { tls, .. } = self.server.facts();
        let tls = tls.unwrap();
        (tls.version, tls.cipher, tls.sni, tls.alpn, tls.common_name)
    }
}

type TlsFactsOf = (String, String, Option<String>, Option<Vec<u8>>, Option<String>);

fn pieces() -> impl Iterator<Item = usize> {
    [1, 2, 3, 5, 6, 7, 64, 1000, 16_389, 70_000].into_iter()
}

#[test]
fn both_versions_in_any_pieces() {
    let files = Files::new();
    let server = TlsServer::new(&files.asking(ClientCertificate::Optional)).unwrap();
    for (ciphers, version, cipher) in [
        (None, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        (Some("ECDHE-ECDSA-AES128-GCM-SHA256"), "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ] {
        for size in pieces() {
            let client = match ciphers {
                None => {
                    let options = TlsClientOptions {
                        certificate: Some(files.pair("device.pem")),
                        ..files.client_options()
                    };
                    client_of(&options, "localhost:8883")
                }
                Some(_) => only_12(&files),
            };
            let mut pair = Pair::new(client, &server);
            assert_eq!((pair.client.stage(), pair.server.stage()), (Stage::Tls, Stage::Tls));
            pair.carry(size).unwrap();
            assert_eq!((pair.client.stage(), pair.server.stage()), (Stage::Open, Stage::Open), "{size}");
            let name = if ciphers.is_none() { Some("device-7".into()) } else { None };
            assert_eq!(pair.facts(), (version.into(), cipher.into(), Some("localhost".into()), None, name));
            let long: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[0]).collect();
            for _ in 0..2 {
                pair.client.encode(&long, &mut pair.to_server).unwrap();
                pair.server.encode(&long, &mut pair.to_client).unwrap();
                pair.carry(size).unwrap();
                assert!(pair.client_got == long && pair.server_got == long, "{size}");
                (pair.client_got, pair.server_got) = (Vec::new(), Vec::new());
            }
            pair.client.close(&mut pair.to_server);
            let flow = pair.server.decode(&mut pair.to_server, &mut pair.server_got, &mut pair.to_client);
            assert_eq!(flow, Ok(Flow::Ended));
            pair.server.encode(b"a last word", &mut pair.to_client).unwrap();
            pair.server.close(&mut pair.to_client);
            pair.server.close(&mut pair.to_client);
            pair.server.encode(b"nothing", &mut pair.to_client).unwrap();
            let _ = pair.carry(size);
        }
    }
}

/// A client of TLS 1.2 alone.
fn only_12(files: &Files) -> Box<dyn Channel> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    Box::new(Buffered::new(files, provider, |_| ()))
}

/// rustls' buffered client, with options that ours does not have.
struct Buffered(ClientConnection);

impl Buffered {
    fn new(
        files: &Files,
        provider: rustls::crypto::CryptoProvider,
        change: impl FnOnce(&mut ClientConfig),
    ) -> Self {
        let config = buffered_config(files, provider, change);
        Self(ClientConnection::new(Arc::new(config), HostName::try_from("localhost").unwrap()).unwrap())
    }
}

fn buffered_config(
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

#[test]
fn what_is_not_tls_is_named() {
    let files = Files::new();
    let server = TlsServer::new(&files.options()).unwrap();
    let table: [(&[u8], &str); 5] = [
        (b"\x10\x1e\0\x04MQTT", "wrong-version: not TLS but MQTT packet type 1 (10 1e 00 04 4d 51 54 54)"),
        (b"GET / HTTP/1.1\r\n\r\n", "wrong-version: not TLS but HTTP (47 45 54 20 2f 20 48 54)"),
        (b"\0", "wrong-version: not TLS but unknown bytes (00)"),
        (b"\x16\x09\x09\x00\x05aaaaa", "wrong-version: not TLS"),
        (b"\x16\x03\x01\xff\xff", "closed: received corrupt message of type MessageTooLarge"),
    ];
    for (sent, detail) in table {
        let mut channel = server.channel();
        let (mut plain, mut answer) = (Vec::new(), Vec::new());
        let fault = channel.decode(&mut sent.to_vec(), &mut plain, &mut answer).unwrap_err();
        assert_eq!((fault.cause, &*fault.detail), (None, detail));
        assert_eq!(channel.stage(), Stage::Tls);
        assert!(channel.facts().tls.is_none() && plain.is_empty());
        channel.encode(b"x", &mut plain).unwrap();
        channel.close(&mut plain);
        assert!(plain.is_empty());
    }
    assert_eq!(&*server.channel().cut_off().detail, "closed");
}

/// What the server says of a client that fails.
fn failure(server: &TlsServer, client: Box<dyn Channel>) -> String {
    let mut pair = Pair::new(client, server);
    match pair.carry(usize::MAX) {
        Err(fault) => {
            assert_eq!(pair.server.stage(), Stage::Tls);
            fault.detail.into_owned()
        }
        Ok(()) => format!("{:?}", pair.server.stage()),
    }
}

#[test]
fn each_outcome_has_its_word() {
    let files = Files::new();
    let strangers = Files::new();
    files.issue("expired.pem", &[], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    files.issue("authority.pem", &[], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    });
    files.issue("revoked.pem", &[], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.serial_number = Some(SerialNumber::from(7));
    });
    revoke(&files, 7, 2100);
    let required = files.asking(ClientCertificate::Required);
    let crl = TlsOptions { crlfile: Some(files.path("crl.pem")), ..required.clone() };
    let tls_13 = TlsOptions { min_version: TlsVersion::Tls13, ..files.options() };
    let one_cipher = TlsOptions { ciphers: Some("ECDHE-ECDSA-CHACHA20-POLY1305".into()), ..files.options() };
    let named =
        TlsOptions { certificate: None, certificates: vec![files.pair("server.pem")], ..files.options() };
    let with = |pair: &str| {
        let certificate = Some(if pair.is_empty() { strangers.pair("device.pem") } else { files.pair(pair) });
        client_of(&TlsClientOptions { certificate, ..files.client_options() }, "localhost:1")
    };
    let without = || client_of(&files.client_options(), "localhost:1");
    let insecure =
        |name: &str| client_of(&TlsClientOptions { insecure: true, ..TlsClientOptions::default() }, name);
    let table = [
        (&tls_13, only_12(&files), "wrong-version: the client offers no version that is served"),
        (&one_cipher, only_12(&files), "no-shared-cipher: NoCipherSuitesInCommon"),
        (&required, without(), "no-certificate"),
        (&required, with(""), "bad-certificate: "),
        (&required, with("expired.pem"), "bad-certificate: certificate expired"),
        (&required, with("authority.pem"), "bad-certificate: an authority's own certificate (CA:TRUE)"),
        (&crl, with("revoked.pem"), "bad-certificate: "),
        (&named, insecure("other.test:1"), "unknown-sni: other.test"),
        (&files.options(), client_of(&strangers.client_options(), "localhost:1"), "closed: alert UnknownCA"),
        (
            &files.options(),
            client_of(&files.client_options(), "other.test:1"),
            "closed: alert BadCertificate",
        ),
        (&required, with("device.pem"), "Open"),
        (&crl, with("device.pem"), "Open"),
        (&named, insecure("localhost:1"), "Open"),
        (&named, insecure("A.example.ORG:1"), "Open"),
        (&named, insecure("127.0.0.1:1"), "Open"),
        (&files.options(), insecure("other.test:1"), "Open"),
    ];
    for (options, client, said) in table {
        let failure = failure(&TlsServer::new(options).unwrap(), client);
        assert!(failure.starts_with(said), "{failure:?}, not {said:?}");
    }
    revoke(&files, 8, 2021);
    let failure = failure(&TlsServer::new(&crl).unwrap(), with("device.pem"));
    assert!(failure.starts_with("bad-certificate: "), "an expired list: {failure}");
}

/// Writes a list with this number, until that year.
fn revoke(files: &Files, serial: u64, year: i32) {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    files.write("crl.pem", &params.signed_by(&files.authority).unwrap().pem().unwrap());
}

#[test]
fn a_certificate_is_chosen_by_its_names_and_then_by_its_key() {
    let files = Files::new();
    files.issue("ed25519.pem", &["localhost"], &rcgen::PKCS_ED25519, |params| {
        params.distinguished_name.push(DnType::CommonName, "ed25519");
    });
    files.issue("other.pem", &["other.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.distinguished_name.push(DnType::CommonName, "other");
    });
    let server = TlsServer::new(&TlsOptions {
        certificates: vec![files.pair("ed25519.pem"), files.pair("other.pem")],
        ..files.options()
    })
    .unwrap();
    for (client, is_other) in [
        (client_of(&files.client_options(), "other.test:1"), true),
        (client_of(&files.client_options(), "localhost:1"), false),
        (client_of(&files.client_options(), "b.example.org:1"), false),
        (only_12(&files), false),
    ] {
        let mut pair = Pair::new(client, &server);
        pair.carry(usize::MAX).unwrap();
        assert_eq!(pair.server.stage(), Stage::Open);
        assert_eq!(pair.facts().2 == Some("other.test".into()), is_other);
    }
    let key = |name| files::certified_key("", &files.pair(name), &ring::default_provider()).unwrap().into();
    let (default, ed25519, other) = (key("server.pem"), key("ed25519.pem"), key("other.pem"));
    let certificates =
        names::Certificates { default: Some(Arc::clone(&default)), named: vec![ed25519, other] };
    let chosen = |name, scheme| certificates.choose(name, &[scheme]).unwrap().cert[0].clone();
    let [ed25519, other] = [0, 1].map(|at| certificates.named[at].cert[0].clone());
    let default = default.cert[0].clone();
    let (ecdsa, edwards) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
    assert_eq!(chosen(Some("localhost"), edwards), ed25519);
    assert_eq!(chosen(Some("localhost"), ecdsa), default, "whose key the client can check");
    assert_eq!(chosen(Some("other.test"), edwards), other, "for there is no better one");
    assert_eq!(chosen(None, ecdsa), default);
}

#[test]
fn a_client_that_offers_other_protocols_is_served_without_one() {
    let files = Files::new();
    let server = TlsServer::new(&files.options()).unwrap();
    for (offered, negotiated) in [
        (vec!["mqtt"], Some("mqtt")),
        (vec!["http/1.1", "mqtt"], Some("mqtt")),
        (vec!["http/1.1"], None),
        (vec![], None),
    ] {
        let client = Buffered::new(&files, ring::default_provider(), |config| {
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        });
        let mut pair = Pair::new(Box::new(client), &server);
        pair.carry(usize::MAX).unwrap();
        assert_eq!(pair.server.stage(), Stage::Open);
        assert_eq!(pair.facts().3.as_deref(), negotiated.map(str::as_bytes));
    }
}

#[test]
fn a_ticket_shortens_the_next_handshake() {
    let files = Files::new();
    let server = TlsServer::new(&files.asking(ClientCertificate::Optional)).unwrap();
    let mut provider_12 = ring::default_provider();
    provider_12.cipher_suites = vec![ring::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    for provider in [ring::default_provider(), provider_12] {
        let config = Arc::new(buffered_config(&files, provider, |_| ()));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let name = HostName::try_from("localhost").unwrap();
            let mut client = Buffered(ClientConnection::new(Arc::clone(&config), name).unwrap());
            let mut channel = server.channel();
            let (mut to_server, mut to_client, mut plain) = (Vec::new(), Vec::new(), Vec::new());
            client.start(&mut to_server).unwrap();
            while !to_server.is_empty() {
                channel.decode(&mut std::mem::take(&mut to_server), &mut plain, &mut to_client).unwrap();
                client.decode(&mut std::mem::take(&mut to_client), &mut plain, &mut to_server).unwrap();
            }
            assert_eq!((channel.stage(), client.0.handshake_kind()), (Stage::Open, Some(kind)));
            assert_eq!(channel.facts().tls.unwrap().sni.as_deref(), Some("localhost"));
        }
    }
}

#[test]
fn a_changed_record_ends_the_session_with_an_alert() {
    let files = Files::new();
    let server = TlsServer::new(&files.options()).unwrap();
    for at in [0, 1, 3, 5, 20] {
        let mut pair = Pair::new(client_of(&files.client_options(), "localhost:1"), &server);
        pair.carry(usize::MAX).unwrap();
        pair.client.encode(b"hello", &mut pair.to_server).unwrap();
        pair.client.encode(b"hello", &mut pair.to_server).unwrap();
        let second = pair.to_server.len() / 2;
        pair.to_server[second + at] ^= 0x40;
        let decoded = pair.server.decode(&mut pair.to_server, &mut pair.server_got, &mut pair.to_client);
        if at == 3 {
            // A larger length: the rest does not come.
            assert_eq!(decoded, Ok(Flow::Open));
            continue;
        }
        assert!(decoded.unwrap_err().detail.starts_with("TLS: "), "{at}");
        assert_eq!(pair.server_got, b"hello");
        assert_eq!(pair.server.stage(), Stage::Open);
        assert!(!pair.to_client.is_empty(), "the alert");
        let sent = pair.to_client.len();
        pair.server.encode(b"more", &mut pair.to_client).unwrap();
        pair.server.close(&mut pair.to_client);
        assert_eq!(pair.to_client.len(), sent);
    }
}

#[test]
fn no_bytes_of_a_client_panic() {
    let files = Files::new();
    let server = TlsServer::new(&files.options()).unwrap();
    let mut hello = Vec::new();
    client_of(&files.client_options(), "localhost:1").start(&mut hello).unwrap();
    for at in 0..hello.len() {
        for bit in [0x01, 0x80] {
            let mut changed = hello.clone();
            changed[at] ^= bit;
            changed.extend_from_slice(&[0xff; 300]);
            let mut channel = server.channel();
            for piece in changed.chunks_mut(at % 50 + 1) {
                let (mut plain, mut answer) = (Vec::new(), Vec::new());
                if channel.decode(piece, &mut plain, &mut answer).is_err() {
                    break;
                }
                assert!(plain.is_empty());
            }
            assert_eq!(channel.stage(), Stage::Tls);
        }
    }
}

#[test]
fn a_server_is_believed_by_its_name() {
    let files = Files::new();
    let strangers = Files::new();
    let server = TlsServer::new(&files.options()).unwrap();
    let of = |change: fn(&mut TlsClientOptions), server: &str| {
        let mut options = files.client_options();
        change(&mut options);
        client_of(&options, server)
    };
    let table = [
        (of(|_| (), "localhost:8883"), "Open"),
        (of(|options| options.server_name = Some("a.example.org".into()), "10.0.0.1:8883"), "Open"),
        (of(|options| options.server_name = Some("localhost".into()), "unix:/run/broker"), "Open"),
        (of(|options| options.insecure = true, "[2001:db8::1]:8883"), "Open"),
        (
            client_of(&strangers.client_options(), "localhost:1"),
            "TLS: invalid peer certificate: UnknownIssuer",
        ),
        (of(|_| (), "127.0.0.1:8883"), "TLS: invalid peer certificate: certificate not valid for name"),
        (of(|_| (), "other.test:8883"), "TLS: invalid peer certificate: certificate not valid for name"),
    ];
    for (mut client, said) in table {
        let mut channel = server.channel();
        let (mut to_server, mut to_client, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        client.start(&mut to_server).unwrap();
        let mut failed = None;
        while !to_server.is_empty() && failed.is_none() {
            let _ = channel.decode(&mut std::mem::take(&mut to_server), &mut plain, &mut to_client);
            failed = client.decode(&mut std::mem::take(&mut to_client), &mut plain, &mut to_server).err();
        }
        let ended = failed.map_or(format!("{:?}", client.stage()), |fault| fault.detail.into_owned());
        assert!(ended.starts_with(said), "{ended:?}, not {said:?}");
    }
    let mut nameless = client_of(&files.client_options(), "unix:/run/broker");
    let fault = nameless.start(&mut Vec::new()).unwrap_err();
    assert_eq!(fault.detail, "TLS: server_name is needed for unix:/run/broker");
    assert_eq!(nameless.stage(), Stage::Tls);
}

/// These options say what is wrong with them.
fn expect_errors<const N: usize>(table: [(TlsOptions, String); N]) {
    for (options, said) in table {
        let error = TlsServer::new(&options).unwrap_err().to_string();
        assert!(error.starts_with(&said), "{error}\nnot {said}");
    }
}

#[test]
fn a_certificate_and_a_key_that_cannot_be_used_say_why() {
    let files = Files::new();
    let device = fs::read_to_string(files.path("device.pem")).unwrap();
    let (certificate, key) = device.split_at(device.find("-----BEGIN PRIVATE").unwrap());
    files.write("certificate.pem", certificate);
    files.write("key.pem", key);
    files.write("junk.pem", "not a certificate\n");
    files.write("encrypted.pem", &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    files.write(
        "old.pem",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
    );
    let pair = |certfile: &str, keyfile: &str| {
        let keyfile = (!keyfile.is_empty()).then(|| files.path(keyfile));
        let certificate = Some(CertificateFiles { certfile: files.path(certfile), keyfile });
        TlsOptions { certificate, ..TlsOptions::default() }
    };
    let folder = files.folder.display();
    let both = |keyfile: &str, said: &str| {
        format!("certfile: {folder}/certificate.pem and {folder}/{keyfile}: {said}")
    };
    expect_errors([
        (TlsOptions::default(), "certfile: is needed".into()),
        (pair("none.pem", "key.pem"), format!("certfile: {folder}/none.pem: no such file")),
        (pair("certificate.pem", "none.pem"), format!("keyfile: {folder}/none.pem: no such file")),
        (pair("certificate.pem", "server.pem"), both("server.pem", "the key is not the certificate's")),
        (pair("certificate.pem", "junk.pem"), both("junk.pem", "not a certificate and key in PEM form")),
        (
            pair("certificate.pem", "encrypted.pem"),
            both("encrypted.pem", "the key is encrypted, and rustls reads"),
        ),
        (
            pair("certificate.pem", "old.pem"),
            both("old.pem", "the key is encrypted, and rustls reads no such key"),
        ),
        (
            pair("junk.pem", "key.pem"),
            format!(
                "certfile: {folder}/junk.pem and {folder}/key.pem: not a certificate and key in PEM form"
            ),
        ),
        (
            pair("certificate.pem", ""),
            format!("certfile: {folder}/certificate.pem: not a certificate and key"),
        ),
    ]);
}

#[test]
fn options_that_cannot_be_meant_say_why() {
    let files = Files::new();
    files.issue("nameless.pem", &[], &rcgen::PKCS_ECDSA_P256_SHA256, |_| ());
    files.write("junk.pem", "not a certificate\n");
    let with = |change: &dyn Fn(&mut TlsOptions)| {
        let mut options = files.options();
        change(&mut options);
        options
    };
    let more = |names: [&str; 2]| TlsOptions {
        certificates: names.map(|name| files.pair(name)).into(),
        ..files.options()
    };
    let cafile = |name: &str| TlsOptions { cafile: Some(files.path(name)), ..files.options() };
    let folder = files.folder.display();
    expect_errors([
        (
            more(["server.pem", "nameless.pem"]),
            format!("certificates[1].certfile: {folder}/nameless.pem: no host name in it (subjectAltName)"),
        ),
        (
            more(["none.pem", "none.pem"]),
            format!("certificates[0].certfile: {folder}/none.pem: no such file"),
        ),
        (cafile("junk.pem"), format!("cafile: {folder}/junk.pem: no certificate in it")),
        (cafile("none.pem"), format!("cafile: {folder}/none.pem: No such file or directory")),
        (
            with(&|options| options.client_certificate = ClientCertificate::Required),
            "cafile: is needed for client_certificate: required".into(),
        ),
        (
            with(&|options| options.crlfile = Some(files.path("server.pem"))),
            format!("crlfile: {folder}/server.pem: no revocation list in it"),
        ),
        (
            with(&|options| options.ciphers = Some("HIGH".into())),
            "ciphers: \"HIGH\" is no cipher suite".into(),
        ),
        (with(&|options| options.strict_x509 = Some(true)), "strict_x509: rustls has no such checks".into()),
    ]);
    assert!(TlsServer::new(&with(&|options| options.strict_x509 = Some(false))).is_ok());
    let upstream = [
        (TlsClientOptions::default(), "cafile: is needed, or insecure: true"),
        (
            TlsClientOptions { server_name: Some("no name".into()), ..files.client_options() },
            "server_name: \"no name\" is neither",
        ),
    ];
    for (options, said) in upstream {
        let error = TlsClient::new(&options).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_certificate_of_version_1_is_refused_by_name() {
    let error = TlsServer::new(&TlsOptions {
        certificate: Some(CertificateFiles {
            certfile: Path::new("tests/x509_v1.pem").into(),
            keyfile: None,
        }),
        ..TlsOptions::default()
    })
    .unwrap_err();
    let said =
        "certfile: tests/x509_v1.pem: a certificate of X.509 version 1, and rustls takes version 3 alone";
    assert!(error.to_string().starts_with(said), "{error}");
}
