//! Headers that come late, in pieces, or not at all.

use std::io::Write;

use proxyproto_acceptor::{HeaderTimeout, Options, Outcome, ProxyProtocol};

use crate::pair::{MQTT_CONNECT, Served, V1, V2_LOCAL, finish, options, read_all, until_closed};

#[test]
fn a_header_may_come_in_two_parts() {
    let served = Served::new(options());
    for split in 1..V1.len() {
        let mut peer = served.peer(&V1[..split]);
        served.until_pending(1);
        peer.write_all(&V1[split..]).unwrap();
        peer.write_all(b"payload").unwrap();
        finish(&peer);
        assert_eq!(read_all(served.accept()), b"payload", "split at {split}");
    }
}

#[test]
fn the_rest_of_a_long_header_may_come_with_the_peers_end() {
    let header = [V2_LOCAL, &[0x04, 0x03, 0xe8], &[0; 1000]].concat();
    let header = [&header[..14], &[0x03, 0xeb], &header[16..]].concat();
    let served = Served::new(options());
    let mut peer = served.peer(&header[..100]);
    served.until_pending(1);
    // One segment for the rest, the payload and the end.
    rustix::net::sockopt::set_tcp_cork(&peer, true).unwrap();
    peer.write_all(&header[100..]).unwrap();
    peer.write_all(b"payload").unwrap();
    finish(&peer);
    assert_eq!(read_all(served.accept()), b"payload");
}

#[test]
fn what_is_handed_over_wakes_for_a_single_byte_again() {
    let served = Served::new(options());
    let mut peer = served.peer(&V1[..20]);
    served.until_pending(1);
    peer.write_all(&V1[20..]).unwrap();
    let connection = served.accept();
    peer.write_all(b"x").unwrap();
    let mut fds = [rustix::event::PollFd::new(&connection.fd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
}

#[test]
fn the_deadline_is_total() {
    let header_timeout = HeaderTimeout::from_secs(0.3).unwrap();
    let served = Served::new(options().header_timeout(header_timeout));
    let silent = served.peer(b"");
    let begun = served.peer(b"PROXY TC");
    until_closed(&silent);
    until_closed(&begun);
    served.until_count(Outcome::Timeout, 2);
}

#[test]
fn an_update_shortens_the_wait_of_those_who_wait() {
    let served = Served::new(options());
    let peer = served.peer(b"PROXY TC");
    served.until_pending(1);
    let header_timeout = HeaderTimeout::from_secs(0.05).unwrap();
    served.listener.update(options().header_timeout(header_timeout)).unwrap();
    until_closed(&peer);
    served.until_count(Outcome::Timeout, 1);
}

#[test]
fn a_late_strangers_first_byte_is_enough() {
    // Without deferred accept the connection is there before its first byte.
    let served = Served::new(options().defer_accept(false));
    let mut peer = served.peer(b"");
    served.until_pending(1);
    peer.write_all(&MQTT_CONNECT[..1]).unwrap();
    assert_eq!(served.refusal().outcome, Outcome::MissingHeader);
}

#[test]
fn each_piece_is_judged_as_it_comes() {
    let optional = || options().proxy_protocol(ProxyProtocol::Optional);
    // The second piece is wrong, and shorter than the rest of any right header.
    let cases: [(Options, &[u8], &[u8], Outcome); 4] = [
        (options(), b"PROXY TCP4 ", b"x y\r\n", Outcome::Malformed),
        (options(), b"PROXY TCP4 192.0.2.1 198.51.100.1 1", b"\r\n", Outcome::Malformed),
        (options(), b"\r\n\r\n", b"GET", Outcome::MissingHeader),
        (optional(), b"P", b"ING\r\n", Outcome::Direct),
    ];
    for (options, first, second, outcome) in cases {
        let served = Served::new(options);
        let mut peer = served.peer(first);
        served.until_pending(1);
        peer.write_all(second).unwrap();
        // A later connection is not served before this one is judged.
        let mut after = Vec::new();
        for count in 1..=2 {
            after.push(served.peer(V1));
            served.until_count(Outcome::V1, count);
        }
        assert_eq!(served.count(outcome), 1, "{} is still waited for", second.escape_ascii());
    }
}

#[test]
fn when_too_many_wait_the_longest_waiting_makes_room() {
    let served = Served::new(options().max_pending(2));
    let first = served.peer(b"P");
    served.until_pending(1);
    let second = served.peer(b"P");
    served.until_pending(2);
    let mut third = served.peer(b"P");
    until_closed(&first);
    assert_eq!(served.refusal().outcome, Outcome::PendingOverflow);
    third.write_all(&V1[1..]).unwrap();
    assert_eq!(served.accept().peer.to_string(), third.local_addr().unwrap().to_string());
    served.until_pending(1);
    drop(second);
}

#[test]
fn with_less_room_than_waits_those_who_are_too_many_go() {
    let served = Served::new(options());
    let _waiting: Vec<_> = (1..=5)
        .map(|count| {
            let peer = served.peer(b"P");
            served.until_pending(count);
            peer
        })
        .collect();
    served.listener.update(options().max_pending(2)).unwrap();
    served.until_count(Outcome::PendingOverflow, 3);
    let mut newest = served.peer(b"P");
    served.until_count(Outcome::PendingOverflow, 4);
    served.until_pending(2);
    newest.write_all(&V1[1..]).unwrap();
    served.accept();
}

#[test]
fn a_peer_that_goes_away_is_forgotten_at_once() {
    let served = Served::new(options());
    let peer = served.peer(b"PROXY");
    served.until_pending(1);
    drop(peer);
    served.until_count(Outcome::ClosedEarly, 1);
    served.until_pending(0);
}
