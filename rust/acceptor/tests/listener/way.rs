//! The way of one connection: each outcome, and not one byte more than the header.

use std::io::Write;
use std::net::TcpStream;

use proxyproto_acceptor::{
    BindOptions, HealthChecks, LocalAddr, Options, Outcome, ProxyProtocol, Socket, Untrusted,
};
use proxyproto_codec::{Options as CodecOptions, Versions};

use crate::pair::{MQTT_CONNECT, Served, V1, V2_LOCAL, finish, networks, options, read_all, until_closed};

#[test]
fn the_header_is_taken_and_not_one_byte_more() {
    for payload in [&b""[..], b"x", MQTT_CONNECT, &vec![b'x'; 100_000]] {
        let served = Served::new(options());
        let sender = {
            let mut peer = served.peer(V1);
            let payload = payload.to_vec();
            std::thread::spawn(move || peer.write_all(&payload).unwrap())
        };
        let connection = served.accept();
        assert_eq!(connection.header.as_ref().unwrap().raw(), V1);
        assert_eq!(read_all(connection), payload);
        sender.join().unwrap();
    }
}

#[test]
fn a_header_larger_than_the_first_look_is_read() {
    let served = Served::new(options());
    // LOCAL with a NOOP TLV of 3000 bytes (R35).
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x20\0\x0b\xbb\x04\x0b\xb8".to_vec();
    header.resize(16 + 0x0bbb, 0);
    let peer = served.peer(&[&header[..], b"payload"].concat());
    finish(&peer);
    let connection = served.accept();
    assert_eq!(connection.header.as_ref().unwrap().raw().len(), 16 + 0x0bbb);
    assert_eq!(read_all(connection), b"payload");
}

#[test]
fn what_comes_decides_the_outcome() {
    let required = options;
    let v2_only = || options().codec(CodecOptions::default().versions(Versions::V2));
    let optional = || options().proxy_protocol(ProxyProtocol::Optional);
    let off = || options().proxy_protocol(ProxyProtocol::Off);
    let stranger = || options().trusted(networks(&["192.0.2.0/24"]));
    let direct = || stranger().untrusted(Untrusted::Direct);
    let zero = b"PROXY TCP4 0.0.0.0 198.51.100.1 12345 1883\r\n";
    let oversized = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    let bad_checksum = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\x07\x03\0\x04\x01\x02\x03\x04";
    let cases: &[(Options, &[u8], Outcome)] = &[
        (required(), V1, Outcome::V1),
        (required(), V2_LOCAL, Outcome::Local),
        (required(), b"PROXY UNKNOWN\r\n", Outcome::Unknown),
        (required(), MQTT_CONNECT, Outcome::MissingHeader),
        (required(), b"PROXY TCP5 ", Outcome::Malformed),
        (required(), zero, Outcome::Malformed),
        (required(), oversized, Outcome::Oversized),
        (required(), bad_checksum, Outcome::BadChecksum),
        (v2_only(), V1, Outcome::VersionNotAllowed),
        (optional(), V1, Outcome::V1),
        (optional(), MQTT_CONNECT, Outcome::Direct),
        (optional(), b"POST / HTTP/1.1\r\n", Outcome::Direct),
        (off(), MQTT_CONNECT, Outcome::Direct),
        (stranger(), V1, Outcome::Untrusted),
        (direct(), V1, Outcome::Direct),
    ];
    for (options, bytes, outcome) in cases {
        let served = Served::new(options.clone());
        let peer = served.peer(bytes);
        if outcome.is_accepted() {
            let connection = served.accept();
            assert_eq!(connection.header.is_some(), *outcome != Outcome::Direct);
        } else {
            let refusal = served.refusal();
            assert_eq!(refusal.outcome, *outcome, "{}", bytes.escape_ascii());
            until_closed(&peer);
        }
        assert_eq!(served.count(*outcome), 1, "{outcome} {}", bytes.escape_ascii());
    }
}

#[test]
fn a_header_that_is_there_already_is_refused_where_none_is_expected() {
    let bind = BindOptions::default().backlog(16);
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), bind).unwrap();
    let LocalAddr::Ip(address) = *socket.local_addr() else { panic!("an internet address") };
    // The listener never waits for bytes here, so they must be there before it looks.
    let mut peer = TcpStream::connect(address).unwrap();
    peer.write_all(V1).unwrap();
    let served = Served::of(socket, options().proxy_protocol(ProxyProtocol::Off));
    assert_eq!(served.refusal().outcome, Outcome::UnexpectedHeader);
    until_closed(&peer);
}

#[test]
fn a_direct_peer_keeps_all_its_bytes() {
    let served = Served::new(options().trusted(networks(&[])).untrusted(Untrusted::Direct));
    let peer = served.peer(V1);
    finish(&peer);
    assert_eq!(read_all(served.accept()), V1);
}

#[test]
fn a_probe_without_a_byte_is_counted_and_not_told() {
    let served = Served::new(options());
    drop(served.peer(b""));
    served.until_count(Outcome::ClosedEarly, 1);
    let taken = served.listener.take_refusals().unwrap();
    assert!(taken.records.is_empty() && taken.lines.is_empty(), "{taken:?}");
}

#[test]
fn a_header_cut_short_is_told() {
    let served = Served::new(options());
    drop(served.peer(&V1[..20]));
    let refusal = served.refusal();
    assert_eq!(refusal.outcome, Outcome::ClosedEarly);
    assert_eq!(refusal.first_bytes, &V1[..20]);
}

#[test]
fn a_log_line_is_for_whoever_reads_it_at_night() {
    let served = Served::new(options());
    let peer = served.peer(MQTT_CONNECT);
    let line =
        served.until(|listener| listener.take_refusals().unwrap().lines.into_iter().next()).to_string();
    let start =
        format!("{} refused {}: missing-header: 10 0c 00 04", served.address, peer.local_addr().unwrap());
    assert!(line.starts_with(&start), "{line}");
    for part in ["is an MQTT CONNECT", "send-proxy-v2", "Repeats from 127.0.0.1 are counted every 10 s"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn health_checks_can_be_closed_and_are_never_told() {
    let served = Served::new(options().health_checks(HealthChecks::Close));
    let peer = served.peer(V2_LOCAL);
    until_closed(&peer);
    assert_eq!(served.count(Outcome::Local), 1);
    assert!(served.listener.take_refusals().unwrap().records.is_empty());
}

#[test]
fn every_peer_is_believed_only_with_a_warning() {
    let served = Served::new(Options::default());
    let taken = served.listener.take_refusals().unwrap();
    assert!(taken.lines[0].to_string().contains("set Options::trusted to"), "{taken:?}");
    assert!(taken.lines[0].text_in(|_| "trusted=").contains("set trusted= to"), "{taken:?}");
}
