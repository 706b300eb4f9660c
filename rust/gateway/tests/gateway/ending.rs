//! How sessions end: by either side, in every way, and by us.

use std::time::Duration;

use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{Admission, Event, PublishRate};
use tokio::io::AsyncWriteExt;

use crate::packets::{DISCONNECT, PINGREQ, PINGRESP, connack, connect, connect_with, packet, publish};
use crate::rig::{Rig, Server, Session, cause};

#[tokio::test]
async fn a_client_that_goes_without_goodbye_is_lost_and_its_last_words_are_not() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for version in Version::ALL {
        let Session { mut client, mut upstream, .. } = rig.session(&server, version).await;
        let last = publish(version, "last", b"words");
        client.send(&last).await;
        drop(client);
        upstream.expect(&last).await;
        upstream.expect_end().await;
        drop(upstream);
        assert_eq!(rig.ended().await.cause, cause("connection-lost"));

        let Session { client, mut upstream, .. } = rig.session(&server, version).await;
        client.reset();
        upstream.expect_end().await;
        drop(upstream);
        let ended = rig.ended().await;
        assert_eq!(ended.cause, cause("connection-lost"));
        assert!(ended.detail.contains("reset"), "{}", ended.detail);
    }
}

#[tokio::test]
async fn a_goodbye_counts_even_if_a_reset_follows() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for _ in 0..20 {
        let Session { mut client, mut upstream, .. } = rig.session(&server, Version::Mqtt311).await;
        // Unread bytes make the close a reset.
        upstream.send(&publish(Version::Mqtt311, "t", b"unread")).await;
        client.0.readable().await.unwrap();
        client.send(DISCONNECT).await;
        drop(client);
        upstream.expect(DISCONNECT).await;
        drop(upstream);
        assert_eq!(rig.ended().await.cause, cause("disconnect"));
    }
}

#[tokio::test]
async fn a_half_closed_client_is_served_to_its_end() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let version = Version::Mqtt311;
    let Session { mut client, mut upstream, .. } = rig.session(&server, version).await;
    client.shut_down().await;
    upstream.expect_end().await;
    let rest = publish(version, "rest", &vec![7; 20_000]);
    upstream.send(&rest).await;
    drop(upstream);
    client.expect(&rest).await;
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("connection-lost"));
}

#[tokio::test]
async fn a_client_that_is_half_closed_from_the_start_is_served_too() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let version = Version::Mqtt311;
    let words = [connect(version, "dev"), publish(version, "t", b"m"), DISCONNECT.to_vec()].concat();
    let mut client = rig.client(&words).await;
    client.shut_down().await;
    rig.admit().await;
    let mut upstream = server.accept().await;
    upstream.expect(&connect(version, "dev")).await;
    upstream.send(&connack(version, 0)).await;
    upstream.expect(&words[connect(version, "dev").len()..]).await;
    client.expect(&connack(version, 0)).await;
    upstream.expect_end().await;
    drop(upstream);
    client.expect_end().await;
    rig.welcomed().await;
    assert_eq!(rig.ended().await.cause, cause("disconnect"));
}

#[tokio::test]
async fn a_server_that_closes_is_heard_to_its_end() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for version in Version::ALL {
        let Session { mut client, mut upstream, .. } = rig.session(&server, version).await;
        let last = publish(version, "last", &[1; 5000]);
        upstream.send(&last).await;
        drop(upstream);
        client.expect(&last).await;
        client.expect_end().await;
        drop(client);
        // The server is still there.
        assert_eq!(rig.ended().await.cause, cause("upstream-closed"));
    }
}

#[tokio::test]
async fn a_server_that_resets_or_has_gone_is_lost() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let Session { mut client, upstream, .. } = rig.session(&server, Version::Mqtt5).await;
    upstream.reset();
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("upstream-lost"));

    let Session { mut client, upstream, .. } = rig.session(&server, Version::Mqtt5).await;
    // As a process does that is killed: it listens no more, and its connections are closed.
    drop(server);
    drop(upstream);
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("upstream-lost"));
}

#[tokio::test]
async fn a_killed_server_is_lost_although_its_listening_socket_goes_last() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let Session { mut client, upstream, .. } = rig.session(&server, Version::Mqtt311).await;
    drop(upstream);
    client.expect_end().await;
    server.looked_at().await;
    drop(server);
    assert_eq!(rig.ended().await.cause, cause("upstream-lost"));
}

#[tokio::test]
async fn a_servers_disconnect_says_why() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let table: [(&[u8], &str, u8, Option<&str>); 3] = [
        (b"\xe0\x01\x8e", "taken-over", 0x8e, None),
        (b"\xe0\x02\x8b\0", "upstream-closed", 0x8b, None),
        (b"\xe0\x09\x97\x07\x1f\0\x04full", "upstream-closed", 0x97, Some("full")),
    ];
    for (goodbye, code, server_code, words) in table {
        let Session { mut client, mut upstream, .. } = rig.session(&server, Version::Mqtt5).await;
        upstream.send(goodbye).await;
        drop(upstream);
        client.expect(goodbye).await;
        client.expect_end().await;
        drop(client);
        let ended = rig.ended().await;
        assert_eq!((ended.cause, ended.server_code), (cause(code), Some(server_code)));
        assert_eq!(ended.reason_string.as_deref(), words);
    }
}

#[tokio::test]
async fn a_session_whose_id_has_come_again_is_taken_over() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    // The last pieces of the server, and what a client of MQTT 5 gets behind them.
    let table: [(&[&[u8]], &[u8]); 4] = [
        (&[], b"\xe0\x01\x8e"),
        (&[PINGRESP], b"\xe0\x01\x8e"),
        (&[PINGRESP, b"\x30\x05\0\x01"], b""), // a torn packet
        (&[b"\xe0\x01", b"\x8e"], b""),        // told already
    ];
    for (version, (last, told)) in
        Version::ALL.into_iter().flat_map(|version| table.map(|row| (version, row)))
    {
        if version != Version::Mqtt5 && last.first() == Some(&&b"\xe0\x01"[..]) {
            continue;
        }
        let mut old = rig.session(&server, version).await;
        let packet = connect(version, "dev");
        let client = rig.client(&packet).await;
        rig.admit().await;
        let mut upstream = server.accept().await;
        upstream.expect(&packet).await;
        // Brokers end the old one first.
        for piece in last {
            old.upstream.send(piece).await;
            old.client.expect(piece).await;
        }
        drop(old.upstream);
        if version == Version::Mqtt5 {
            old.client.expect(told).await;
        }
        old.client.expect_end().await;
        drop(old.client);
        let ended = rig.ended().await;
        assert_eq!((ended.token, ended.cause), (old.token, cause("taken-over")));
        upstream.send(&connack(version, 0)).await;
        rig.welcomed().await;
        drop(client);
        upstream.expect_end().await;
        drop(upstream);
        assert_eq!(rig.ended().await.cause, cause("connection-lost"));
    }
}

#[tokio::test]
async fn a_goodbye_may_say_how_long_the_session_is_to_be_kept() {
    let server = Server::new().await;
    for is_strict in [false, true] {
        let rig = Rig::new(&[&server], |options| options.mqtt.strict = is_strict);
        let goodbye = b"\xe0\x07\0\x05\x11\0\0\0\x3c";
        let table: [(&[u8], _); 3] =
            [(DISCONNECT, None), (goodbye, Some(60)), (&[PINGREQ, goodbye].concat(), Some(60))];
        for (words, session_expiry) in table {
            let Session { mut client, mut upstream, .. } = rig.session(&server, Version::Mqtt5).await;
            client.send(words).await;
            upstream.expect(words).await;
            upstream.expect_end().await;
            drop(upstream);
            assert_eq!(rig.ended().await.session_expiry, session_expiry);
        }
    }
}

#[tokio::test]
async fn what_a_client_must_not_send_ends_it_behind_what_it_may() {
    let version = Version::Mqtt5;
    let table = [
        (connect(version, "dev"), "second-connect", 0x82),
        (b"\x90\x03\0\x01\0".to_vec(), "malformed-packet", 0x81),
        (b"\xc0\x81\x80\x80\x80\x01".to_vec(), "malformed-packet", 0x81),
        (publish(version, "t", &[0; 5000]), "packet-too-large", 0x95),
    ];
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| options.mqtt.max_packet_size = 1000);
    let good = publish(version, "good", b"one");
    for (bad, code, answer) in table {
        for split in 0..3 {
            let Session { mut client, mut upstream, .. } = rig.session(&server, version).await;
            let words = [&good[..], &bad, &good].concat();
            let (first, second) = words.split_at(good.len() + split);
            client.send(first).await;
            upstream.expect(&good).await;
            client.send(second).await;
            client.expect(&[0xe0, 1, answer]).await;
            client.expect_end().await;
            // The bytes of its header that had come before it was known are all that goes on.
            let rest = upstream.read_all().await;
            assert!(bad[..split].starts_with(&rest), "{code} {}", rest.escape_ascii());
            drop(client);
            assert_eq!(rig.ended().await.cause, cause(code));
        }
    }
}

#[tokio::test]
async fn what_a_server_must_not_send_ends_the_session() {
    let version = Version::Mqtt5;
    let table = [
        (publish(version, "t", &[0; 5000]), "packet-too-large", Some(0x95)),
        (b"\x82\x05\0\x01\0\0\0".to_vec(), "broker-error", None),
        (b"garbage".to_vec(), "broker-error", None),
    ];
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| options.mqtt.max_packet_size = 1000);
    let good = publish(version, "good", b"one");
    for (bad, code, answer) in table {
        let Session { mut client, mut upstream, .. } = rig.session(&server, version).await;
        upstream.send(&[&good[..], &bad].concat()).await;
        client.expect(&good).await;
        let farewell = answer.map(|code| vec![0xe0, 1, code]).unwrap_or_default();
        assert_eq!(client.read_all().await, farewell, "{code}");
        upstream.expect_end().await;
        drop(client);
        assert_eq!(rig.ended().await.cause, cause(code));
    }
}

#[tokio::test]
async fn the_farewell_of_5_comes_at_the_boundary_of_a_packet() {
    let version = Version::Mqtt5;
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let message = publish(version, "t", &[9; 300]);
    for split in [1, 2, 3, 100, message.len() - 1] {
        let Session { mut client, mut upstream, token } = rig.session(&server, version).await;
        upstream.send(&message[..split]).await;
        client.expect(&message[..split]).await;
        rig.gateway.end(token, cause("blocked"), "");
        // Nothing of the client goes on any more.
        client.send(PINGREQ).await;
        upstream.send(&[&message[split..], &message].concat()).await;
        client.expect(&[&message[split..], b"\xe0\x01\x98"].concat()).await;
        client.expect_end().await;
        upstream.expect_end().await;
        drop(client);
        assert_eq!(rig.ended().await.cause, cause("blocked"));
    }
}

#[tokio::test]
async fn a_server_that_does_not_end_its_packet_holds_no_ending_up() {
    let version = Version::Mqtt5;
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let Session { mut client, mut upstream, token } = rig.session(&server, version).await;
    let message = publish(version, "t", &[9; 300]);
    upstream.send(&message[..100]).await;
    client.expect(&message[..100]).await;
    rig.gateway.end(token, cause("administrative"), "");
    client.expect_end().await;
    upstream.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("administrative"));
}

#[tokio::test]
async fn deadlines_of_a_session_hold() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| {
        options.mqtt.packet_timeout = Duration::from_millis(100);
        options.mqtt.keepalive_factor = 1.0;
    });
    let version = Version::Mqtt5;
    let patient = connect_with(version, "dev", 1, b"", None);
    let Session { mut client, mut upstream, .. } = rig.session_of(&server, version, &patient).await;
    client.send(PINGREQ).await;
    upstream.expect(PINGREQ).await;
    upstream.send(PINGRESP).await;
    client.expect(PINGRESP).await;
    client.expect(b"\xe0\x01\x8d").await;
    client.expect_end().await;
    upstream.expect_end().await;
    drop(client);
    assert_eq!(rig.ended().await.cause, cause("keep-alive"));

    let Session { mut client, mut upstream, .. } = rig.session(&server, version).await;
    let message = publish(version, "t", b"0123456789");
    client.send(&message[..10]).await;
    upstream.expect(&message[..10]).await;
    client.expect_end().await;
    upstream.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("packet-timeout"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_a_slow_consumer() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| {
        options.mqtt.send_timeout = Duration::from_millis(200);
        options.mqtt.max_send_buffer = 1000;
    });
    let version = Version::Mqtt5;
    let Session { client, mut upstream, .. } = rig.session(&server, version).await;
    let message = publish(version, "t", &vec![0; 60_000]);
    // The kernel takes some megabytes, and then nothing more is read from the server.
    let flood = async {
        while upstream.0.write_all(&message).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = rig.ended() => ended,
        () = flood => unreachable!(),
    };
    assert_eq!(ended.cause, cause("slow-consumer"));
    drop(client);
}

#[tokio::test]
async fn a_client_that_publishes_too_fast_waits_and_its_pings_do_not() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| {
        let rate = PublishRate { count: 2, per: Duration::from_millis(400) };
        options.mqtt.publish = vec![rate];
    });
    let version = Version::Mqtt311;
    let Session { mut client, mut upstream, .. } = rig.session(&server, version).await;
    let messages: Vec<_> = (0..6).map(|number| publish(version, "t", &[number; 300])).collect();
    let subscribe = packet(0x82, b"\0\x01\0\x01a\0");
    client.send(&[messages.concat(), PINGREQ.to_vec(), subscribe.clone()].concat()).await;
    upstream.expect(&messages[..2].concat()).await;
    upstream.expect(PINGREQ).await;
    upstream.expect(&messages[2..].concat()).await;
    upstream.expect(&subscribe).await;
    assert_eq!(rig.gateway.stats().listeners[0].counts.publish_delays, 4);
    assert_eq!(rig.gateway.stats().listeners[0].counts.packets_in[3], 6);
}

#[tokio::test]
async fn a_drain_ends_all_and_a_close_too() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let mut sessions = Vec::new();
    for version in [Version::Mqtt311, Version::Mqtt5, Version::Mqtt5] {
        sessions.push(rig.session(&server, version).await);
    }
    rig.gateway.drain(Duration::from_millis(300));
    for mut session in sessions {
        let answer = session.client.read_all().await;
        assert!(answer.is_empty() || answer == b"\xe0\x01\x8b", "{}", answer.escape_ascii());
        drop(session);
        assert_eq!(rig.ended().await.cause, cause("server-shutdown"));
    }
    let mut session = rig.session(&server, Version::Mqtt5).await;
    let mut waiting = rig.client(&connect(Version::Mqtt5, "late")).await;
    let login = rig.login().await;
    rig.gateway.close();
    session.client.expect(b"\xe0\x01\x8b").await;
    session.client.expect_end().await;
    session.upstream.expect_end().await;
    waiting.read_all().await;
    for _ in 0..2 {
        match rig.event().await {
            Event::Ended(ended) => assert_eq!(ended.cause, cause("server-shutdown")),
            Event::Refused(refused) => assert_eq!(refused.token, Some(login.token)),
            other => panic!("{other:?}"),
        }
    }
    assert!(rig.gateway.next().await.is_none());
    assert!(!rig.gateway.admit(login.token, Admission::default()));
    rig.gateway.close();
}
