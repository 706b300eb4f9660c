//! A whole session in any pieces, and what becomes of one whose bytes are changed.

use super::super::{ClientCertificate, TlsClientOptions, TlsServer};
use super::files::Files;
use super::peers::{Pair, client_of, only_12, pieces};
use crate::channel::{Channel, Flow, Stage};

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
