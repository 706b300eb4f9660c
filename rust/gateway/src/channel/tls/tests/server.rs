//! What a server says of the clients that it does not take, and how it serves the others.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateRevocationListParams, DnType, IsCa, KeyIdMethod, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::ServerName as HostName;
use rustls::{ClientConnection, HandshakeKind, SignatureScheme};

use super::super::files as tls_files;
use super::super::names::Certificates;
use super::super::{ClientCertificate, TlsClientOptions, TlsOptions, TlsServer, TlsVersion};
use super::files::Files;
use super::peers::{Buffered, Pair, buffered_config, client_of, only_12};
use crate::channel::{Channel, Stage};

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
    let key =
        |name| tls_files::certified_key("", &files.pair(name), &ring::default_provider()).unwrap().into();
    let (default, ed25519, other) = (key("server.pem"), key("ed25519.pem"), key("other.pem"));
    let certificates = Certificates { default: Some(Arc::clone(&default)), named: vec![ed25519, other] };
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
