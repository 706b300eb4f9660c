//! The way of a client that is let in.

use proxyproto_gateway::acceptor;
use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{Admission, HeaderOut, ListenerOptions, Replace};

use crate::packets::{DISCONNECT, connack, connack_out, connect, connect_with, publish};
use crate::rig::{Rig, Server, V1, cause};

#[tokio::test]
async fn a_client_of_each_version_is_let_in_and_heard_to_its_goodbye() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for version in Version::ALL {
        let mut session = rig.session(&server, version).await;
        let (there, back) = (publish(version, "a/b", b"there"), publish(version, "c", b"back again"));
        session.client.send(&there).await;
        session.upstream.expect(&there).await;
        session.upstream.send(&back).await;
        session.client.expect(&back).await;
        let traffic = rig.gateway.traffic(session.token).unwrap();
        assert_eq!((traffic.packets_in, traffic.packets_out), (2, 2));

        session.client.send(DISCONNECT).await;
        session.upstream.expect(DISCONNECT).await;
        session.upstream.expect_end().await;
        drop(session.upstream);
        session.client.expect_end().await;
        drop(session.client);
        let ended = rig.ended().await;
        assert_eq!((ended.token, ended.cause), (session.token, cause("disconnect")), "{version}");
        let sent = connect(version, "dev").len() + there.len() + DISCONNECT.len();
        let got = connack_out(version, 65536).len() + back.len();
        assert_eq!((ended.traffic.bytes_in, ended.traffic.bytes_out), (sent as u64, got as u64));
        assert_eq!((ended.traffic.packets_in, ended.traffic.packets_out), (3, 2));
        assert!(rig.gateway.traffic(session.token).is_none());
    }
    let stats = rig.gateway.stats();
    let counts = stats.listeners[0].counts;
    assert_eq!((counts.packets_in[1], counts.packets_in[3], counts.packets_in[14]), (3, 3, 3));
    assert_eq!((counts.packets_out[2], counts.packets_out[3]), (3, 3));
    assert_eq!((stats.sessions, stats.servers[0].connections, stats.servers[0].answered), (0, 0, 3));
    assert_eq!(stats.listeners[0].unauthenticated, 0);
}

#[tokio::test]
async fn the_login_says_who_comes_and_what_for() {
    let server = Server::new().await;
    let proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let listening = acceptor::Options::default().trusted(proxies);
    let rig = Rig::with(&[&server], listening, ListenerOptions::new("outside"), |_| {});
    let packet = connect_with(Version::Mqtt311, "dev", 30, b"", Some(("alice", "secret")));
    let _client = rig.client(&[V1, &packet].concat()).await;
    let login = rig.login().await;
    assert_eq!(login.arrival.client().to_string(), "192.0.2.1:12345");
    assert_eq!(login.arrival.destination().to_string(), "198.51.100.1:1883");
    assert_eq!(&*login.arrival.listener, "outside");
    let connect = &login.connect;
    assert_eq!((connect.client_id(), connect.username(), connect.keep_alive()), ("dev", Some("alice"), 30));
    assert_eq!(connect.password(), Some(&b"secret"[..]));
}

#[tokio::test]
async fn header_and_connect_come_to_the_server_in_one_piece() {
    for header in [HeaderOut::V1, HeaderOut::V2] {
        let server = Server::new().await;
        let proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
        let listening = acceptor::Options::default().trusted(proxies);
        let rig = Rig::with(&[&server], listening, ListenerOptions::new("tcp"), |options| {
            options.upstream.header = header;
        });
        let packet = connect(Version::Mqtt311, "dev");
        let _client = rig.client(&[V1, &packet].concat()).await;
        rig.admit().await;
        let upstream = server.accept().await;
        let mut piece = [0; 512];
        // What one write has sent on loopback is one read.
        let count = upstream.0.peek(&mut piece).await.unwrap();
        let header = piece[..count].strip_suffix(&packet[..]).expect("the CONNECT behind the header");
        match acceptor::codec::decode(header, &acceptor::codec::Options::default()).unwrap() {
            acceptor::codec::Status::Complete(decoded) => {
                assert_eq!(decoded.raw(), header);
                let source = decoded.source().unwrap().socket_addr().unwrap();
                assert_eq!(source.to_string(), "192.0.2.1:12345");
            }
            partial @ acceptor::codec::Status::Partial { .. } => panic!("{partial:?}"),
        }
    }
}

#[tokio::test]
async fn any_split_of_connect_and_connack_is_the_same() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for version in Version::ALL {
        let (packet, answer) = (connect(version, "dev"), connack(version, 0));
        for split in 1..packet.len() {
            let mut client = rig.client(&packet[..split]).await;
            tokio::task::yield_now().await;
            client.send(&packet[split..]).await;
            rig.admit().await;
            let mut upstream = server.accept().await;
            upstream.expect(&packet).await;
            let split = split % answer.len();
            upstream.send(&answer[..split]).await;
            tokio::task::yield_now().await;
            upstream.send(&answer[split..]).await;
            rig.welcomed().await;
            client.expect(&connack_out(version, 65536)).await;
            drop((client, upstream));
            rig.ended().await;
        }
    }
}

#[tokio::test]
async fn what_comes_with_the_connect_and_with_the_connack_is_not_lost() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let version = Version::Mqtt311;
    let packet = connect(version, "dev");
    let (early, behind) = (publish(version, "early", b"bird"), publish(version, "kept", b"message"));
    let mut client = rig.client(&[&packet[..], &early].concat()).await;
    rig.admit().await;
    let mut upstream = server.accept().await;
    upstream.expect(&packet).await;
    upstream.send(&[connack(version, 0), behind.clone()].concat()).await;
    rig.welcomed().await;
    upstream.expect(&early).await;
    client.expect(&[connack(version, 0), behind].concat()).await;
}

#[tokio::test]
async fn an_admission_changes_the_connect() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let sent = |id, user| connect_with(Version::Mqtt311, id, 60, b"", user);
    let packet = sent("", Some(("alice", "secret")));
    let bob = || Replace::With("bob".to_owned());
    let other = Replace::With(b"other".to_vec());
    let cases = [
        (Replace::Keep, Replace::Keep, "", packet.clone()),
        (bob(), Replace::Keep, "auto-1", sent("auto-1", Some(("bob", "secret")))),
        (bob(), other, "auto-1", sent("auto-1", Some(("bob", "other")))),
        (Replace::Without, Replace::Without, "auto-1", sent("auto-1", None)),
    ];
    for (username, password, client_id, expected) in cases {
        let _client = rig.client(&packet).await;
        let token = rig.login().await.token;
        let mut admission = Admission::default();
        (admission.username, admission.password) = (username, password);
        admission.client_id = (!client_id.is_empty()).then(|| client_id.to_owned());
        assert!(rig.gateway.admit(token, admission));
        let mut upstream = server.accept().await;
        upstream.expect(&expected).await;
        upstream.send(&connack(Version::Mqtt311, 0)).await;
        assert_eq!(rig.welcomed().await.client_id, client_id);
        drop(upstream);
        rig.ended().await;
    }
}

/// The server's properties, the client's, the id that was chosen, and the id and the keep-alive of the session.
type Row = (&'static [u8], &'static [u8], &'static str, &'static str, u16);

#[tokio::test]
async fn in_5_the_connack_tells_what_counts() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| options.mqtt.max_packet_size = 5000);
    let table: [Row; 5] = [
        (b"", b"\x27\0\0\x13\x88", "", "dev", 60),
        (b"\x27\0\0\x04\0", b"\x27\0\0\x04\0", "", "dev", 60),
        (b"\x27\0\0\xff\xff\x21\0\x0a", b"\x21\0\x0a\x27\0\0\x13\x88", "", "dev", 60),
        (b"\x13\0\x05", b"\x13\0\x05\x27\0\0\x13\x88", "", "dev", 5),
        (b"", b"\x27\0\0\x13\x88\x12\0\x06chosen", "chosen", "chosen", 60),
    ];
    for (properties, expected, chosen, client_id, keep_alive) in table {
        let sent_id = if chosen.is_empty() { "dev" } else { "" };
        let mut client = rig.client(&connect(Version::Mqtt5, sent_id)).await;
        let token = rig.login().await.token;
        let mut admission = Admission::default();
        admission.client_id = (!chosen.is_empty()).then(|| chosen.into());
        rig.gateway.admit(token, admission);
        let mut upstream = server.accept().await;
        upstream.expect(&connect(Version::Mqtt5, client_id)).await;
        let connack = |properties: &[u8]| {
            let length = u8::try_from(properties.len()).unwrap();
            [&[0x20, length + 3, 1, 0, length], properties].concat()
        };
        upstream.send(&connack(properties)).await;
        let welcomed = rig.welcomed().await;
        assert_eq!((&*welcomed.client_id, welcomed.keep_alive), (client_id, keep_alive));
        assert!(welcomed.session_present);
        client.expect(&connack(expected)).await;
        drop((client, upstream));
        rig.ended().await;
    }
}

#[tokio::test]
async fn in_5_the_server_may_choose_the_id() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let _client = rig.client(&connect(Version::Mqtt5, "")).await;
    rig.admit().await;
    let mut upstream = server.accept().await;
    upstream.expect(&connect(Version::Mqtt5, "")).await;
    upstream.send(b"\x20\x0b\0\0\x08\x12\0\x05auto1").await;
    assert_eq!(rig.welcomed().await.client_id, "auto1");
}
