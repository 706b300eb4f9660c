//! What clients of each version are answered, byte by byte: gateway.md's table and the codes of servers.

use std::time::Duration;

use proxyproto_gateway::acceptor::{self, ProxyProtocol};
use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{ListenerOptions, Options};

use crate::packets::{connack, connect, connect_with, packet};
use crate::rig::{Rig, Server, V1, cause};

/// A reason, and the code in 3.1 and 3.1.1 and in 5; `None`: closed without a word.
type Row = (&'static str, Option<u8>, Option<u8>);

#[tokio::test]
async fn a_login_that_is_refused_is_answered_by_the_table() {
    let table: [Row; 13] = [
        ("bad-credentials", Some(5), Some(0x86)),
        ("auth-error", Some(3), Some(0x88)),
        ("blocked", Some(5), Some(0x8a)),
        ("access-denied", Some(5), Some(0x87)),
        ("cert-required", Some(5), Some(0x87)),
        ("protocol-version", Some(1), Some(0x84)),
        ("identifier-rejected", Some(2), Some(0x85)),
        ("malformed-connect", None, Some(0x81)),
        ("too-many-sessions", Some(3), Some(0x97)),
        ("busy", None, Some(0x89)),
        ("upstream-unavailable", Some(3), Some(0x88)),
        ("rate-limited", None, Some(0x9f)),
        ("packet-too-large", None, Some(0x95)),
    ];
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for (code, old, new) in table {
        for version in Version::ALL {
            let mut client = rig.client(&connect(version, "dev")).await;
            let login = rig.login().await;
            assert!(rig.gateway.refuse(login.token, cause(code), "why"));
            let expected = if version == Version::Mqtt5 { new } else { old };
            let answer = expected.map(|code| connack(version, code)).unwrap_or_default();
            assert_eq!(client.read_all().await, answer, "{code} {version}");
            let refused = rig.refused().await;
            assert_eq!((refused.token, refused.cause), (Some(login.token), cause(code)));
            assert_eq!((&*refused.detail, refused.connect.unwrap().client_id()), ("why", "dev"));
            assert_eq!((refused.server, refused.server_code), (None, None));
        }
    }
    rig.until(|stats| stats.listeners[0].unauthenticated == 0).await;
    assert_eq!(rig.gateway.stats().listeners[0].counts.packets_out[2], 31);
}

#[tokio::test]
async fn a_session_of_5_ends_with_the_code_of_the_table_and_an_old_one_in_silence() {
    let table: [(&str, Option<u8>); 12] = [
        ("administrative", Some(0x98)),
        ("blocked", Some(0x98)),
        ("keep-alive", Some(0x8d)),
        ("bad-topic", Some(0x90)),
        ("second-connect", Some(0x82)),
        ("rate-limited", Some(0x96)),
        ("packet-too-large", Some(0x95)),
        ("malformed-packet", Some(0x81)),
        ("server-shutdown", Some(0x8b)),
        ("taken-over", Some(0x8e)),
        ("packet-timeout", None),
        ("broker-error", None),
    ];
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for (code, new) in table {
        for version in Version::ALL {
            let mut session = rig.session(&server, version).await;
            assert!(rig.gateway.end(session.token, cause(code), "why"));
            let packet = new.filter(|_| version == Version::Mqtt5).map(|code| vec![0xe0, 1, code]);
            assert_eq!(session.client.read_all().await, packet.unwrap_or_default(), "{code} {version}");
            // No DISCONNECT goes to the server, so the will goes out.
            session.upstream.expect_end().await;
            drop(session.client);
            let ended = rig.ended().await;
            assert_eq!((ended.token, ended.cause, &*ended.detail), (session.token, cause(code), "why"));
        }
    }
}

#[tokio::test]
async fn what_a_server_answers_goes_to_the_client_as_it_is() {
    let table: [(Version, &[u8], &str, Option<&str>); 14] = [
        (Version::Mqtt31, b"\x20\x02\0\x04", "bad-credentials", None),
        (Version::Mqtt311, b"\x20\x02\0\x05", "bad-credentials", None),
        (Version::Mqtt311, b"\x20\x02\0\x03", "upstream-unavailable", None),
        (Version::Mqtt311, b"\x20\x02\0\x02", "upstream-refused", None),
        (Version::Mqtt5, b"\x20\x03\0\x86\0", "bad-credentials", None),
        (Version::Mqtt5, b"\x20\x03\0\x87\0", "bad-credentials", None),
        (Version::Mqtt5, b"\x20\x03\0\x8c\0", "bad-credentials", None),
        (Version::Mqtt5, b"\x20\x03\0\x8a\0", "upstream-refused", None),
        (Version::Mqtt5, b"\x20\x03\0\x89\0", "upstream-unavailable", None),
        (Version::Mqtt5, b"\x20\x09\0\x9c\x06\x1c\0\x03b:1", "upstream-unavailable", None),
        (Version::Mqtt5, b"\x20\x03\0\x9d\0", "upstream-unavailable", None),
        (Version::Mqtt5, b"\x20\x0a\0\x97\x07\x1f\0\x04full", "upstream-refused", Some("full")),
        // A server that does not know 5.
        (Version::Mqtt5, b"\x20\x02\0\x01", "upstream-refused", None),
        (Version::Mqtt31, b"\x20\x02\x01\x05", "bad-credentials", None),
    ];
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for (version, answer, code, words) in table {
        let mut client = rig.client(&connect(version, "dev")).await;
        rig.admit().await;
        let mut upstream = server.accept().await;
        upstream.expect(&connect(version, "dev")).await;
        upstream.send(answer).await;
        assert_eq!(client.read_all().await.escape_ascii().to_string(), answer.escape_ascii().to_string());
        let refused = rig.refused().await;
        assert_eq!((refused.cause, refused.server_code), (cause(code), Some(answer[3])));
        assert_eq!(refused.server.unwrap().address.to_string(), server.name());
        assert_eq!(refused.reason_string.as_deref(), words);
        upstream.expect_end().await;
    }
}

/// What is sent, the reason, and what is answered.
type FirstBytes = (Vec<u8>, &'static str, &'static [u8]);

#[tokio::test]
async fn what_is_no_valid_connect_is_refused_without_asking() {
    let level = |level: u8| packet(0x10, &[b"\0\x04MQTT", &[level][..], b"\x02\0\x3c\0\x03dev"].concat());
    let large = connect(Version::Mqtt311, &"x".repeat(2000));
    let large_5 = connect(Version::Mqtt5, &"x".repeat(2000));
    let table: Vec<FirstBytes> = vec![
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "malformed-connect", b""),
        (b"\x16\x03\x01\x02\0".to_vec(), "malformed-connect", b""),
        (b"\xc0\0".to_vec(), "malformed-connect", b""),
        (packet(0x10, b"\0\x04MQTT\x04\x03\0\x3c\0\x03dev"), "malformed-connect", b""),
        (packet(0x10, b"\0\x04MQTT\x05\x03\0\x3c\0\0\x03dev"), "malformed-connect", b"\x20\x03\0\x81\0"),
        (level(6), "protocol-version", b"\x20\x02\0\x01"),
        (level(0x84), "protocol-version", b"\x20\x02\0\x01"),
        (packet(0x10, b"\0\x04MQTT\x04\0\0\x3c\0\0"), "identifier-rejected", b"\x20\x02\0\x02"),
        (large, "packet-too-large", b""),
        (large_5, "packet-too-large", b"\x20\x03\0\x95\0"),
    ];
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| options.mqtt.max_connect_size = 1000);
    for (bytes, code, answer) in table {
        let mut client = rig.client(&bytes).await;
        let got = client.read_all().await.escape_ascii().to_string();
        assert_eq!(got, answer.escape_ascii().to_string(), "{}", bytes.escape_ascii());
        let refused = rig.refused().await;
        assert_eq!((refused.cause, refused.token), (cause(code), None), "{}", refused.detail);
        assert_eq!(refused.is_bridge_probe, bytes.get(8) == Some(&0x84));
    }
}

#[tokio::test]
async fn a_proxy_header_that_comes_late_where_none_is_expected_is_named() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let mut client = rig.client(b"").await;
    rig.until(|stats| stats.workers.iter().sum::<usize>() == 1).await;
    client.send(V1).await;
    client.expect_end().await;
    let refused = rig.refused().await;
    assert_eq!(refused.cause, cause("unexpected-header"));
    assert!(refused.detail.contains("PROXY header"), "{}", refused.detail);
}

#[tokio::test]
async fn a_second_proxy_header_is_named_and_goes_nowhere() {
    let server = Server::new().await;
    let proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let listening = acceptor::Options::default().proxy_protocol(ProxyProtocol::Required).trusted(proxies);
    let rig = Rig::with(&[&server], listening, ListenerOptions::new("tcp"), |_| {});
    let mut client = rig.client(&[V1, V1, &connect(Version::Mqtt311, "dev")].concat()).await;
    client.expect_end().await;
    let refused = rig.refused().await;
    assert_eq!(refused.cause, cause("malformed-connect"));
    assert!(refused.detail.contains("a second PROXY header"), "{}", refused.detail);
    assert_eq!(refused.arrival.client().to_string(), "192.0.2.1:12345");
}

#[tokio::test]
async fn a_version_that_the_servers_do_not_speak_is_refused_by_us() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options: &mut Options| {
        options.upstream.versions = proxyproto_gateway::mqtt::Versions::of(&[Version::Mqtt311]);
    });
    for (version, answer) in
        [(Version::Mqtt5, &b"\x20\x03\0\x84\0"[..]), (Version::Mqtt31, b"\x20\x02\0\x01")]
    {
        let mut client = rig.client(&connect(version, "dev")).await;
        assert_eq!(client.read_all().await, answer);
        let refused = rig.refused().await;
        assert_eq!((refused.cause, &*refused.client_id), (cause("protocol-version"), "dev"));
    }
}

#[tokio::test]
async fn who_is_not_let_in_in_time_is_told_so() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| {
        options.mqtt.connect_timeout = Duration::from_millis(50);
        options.mqtt.auth_timeout = Duration::from_millis(50);
    });
    let packet = connect_with(Version::Mqtt311, "dev", 60, b"", Some(("alice", "secret")));
    let mut silent = rig.client(b"").await;
    silent.expect_end().await;
    assert_eq!(rig.refused().await.cause, cause("no-connect"));
    let mut half = rig.client(&packet[..10]).await;
    half.expect_end().await;
    assert_eq!(rig.refused().await.cause, cause("no-connect"));
    let mut client = rig.client(&packet).await;
    let login = rig.login().await;
    client.expect(&connack(Version::Mqtt311, 3)).await;
    client.expect_end().await;
    let refused = rig.refused().await;
    assert_eq!((refused.cause, refused.token), (cause("auth-error"), Some(login.token)));
    assert!(!rig.gateway.admit(login.token, proxyproto_gateway::Admission::default()));
}
