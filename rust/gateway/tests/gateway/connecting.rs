//! Which server a client comes to, and what happens when servers are away or say nothing useful.

use std::time::Duration;

use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{Admission, Balance, CheckKind};

use crate::packets::{connack, connect, connect_with, packet, string};
use crate::rig::{Peer, Rig, Server, cause, options};

const V: Version = Version::Mqtt311;

#[tokio::test]
async fn clients_go_where_the_fewest_are_or_to_each_in_turn() {
    for balance in [Balance::LeastConnections, Balance::RoundRobin] {
        let servers = [Server::new().await, Server::new().await, Server::new().await];
        let rig = Rig::new(&servers.each_ref(), |options| options.upstream.balance = balance);
        let mut sessions = Vec::new();
        for _ in 0..6 {
            let client = rig.client(&connect(V, "dev")).await;
            rig.admit().await;
            let mut upstream = tokio::select! {
                peer = servers[0].accept() => peer,
                peer = servers[1].accept() => peer,
                peer = servers[2].accept() => peer,
            };
            upstream.send(&connack(V, 0)).await;
            rig.welcomed().await;
            sessions.push((client, upstream));
        }
        let counts: Vec<_> = rig.gateway.stats().servers.iter().map(|server| server.connections).collect();
        assert_eq!(counts, [2, 2, 2], "{balance:?}");
    }
}

#[tokio::test]
async fn the_same_client_id_comes_to_the_same_server() {
    let servers = [Server::new().await, Server::new().await];
    let rig = Rig::new(&servers.each_ref(), |options| options.upstream.balance = Balance::ClientId);
    let mut counts = [0; 2];
    for number in 0..10 {
        let mut found = Vec::new();
        for _ in 0..2 {
            let _client = rig.client(&connect(V, &format!("dev-{number}"))).await;
            rig.admit().await;
            let (index, mut upstream) = tokio::select! {
                peer = servers[0].accept() => (0, peer),
                peer = servers[1].accept() => (1, peer),
            };
            upstream.send(&connack(V, 0)).await;
            assert_eq!(rig.welcomed().await.server.unwrap().address.to_string(), servers[index].name());
            drop(upstream);
            rig.ended().await;
            found.push(index);
        }
        assert_eq!(found[0], found[1]);
        counts[found[0]] += 1;
    }
    assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
}

#[tokio::test]
async fn another_server_is_asked_while_the_client_has_been_sent_nothing() {
    let (gone, closing, good) = (Server::new().await, Server::new().await, Server::new().await);
    let name = gone.name();
    drop(gone);
    let mut changed = options(&[&closing, &good]);
    changed.upstream.servers.insert(0, name.parse().unwrap());
    changed.upstream.balance = Balance::RoundRobin;
    let rig = Rig::new(&[&closing, &good], |options| *options = changed);
    let mut client = rig.client(&connect(V, "dev")).await;
    rig.admit().await;
    drop(closing.accept().await);
    let mut upstream = good.accept().await;
    upstream.expect(&connect(V, "dev")).await;
    upstream.send(&connack(V, 0)).await;
    assert_eq!(rig.welcomed().await.server.unwrap().address.to_string(), good.name());
    client.expect(&connack(V, 0)).await;
    let failures: Vec<_> = rig.gateway.stats().servers.iter().map(|server| server.failures).collect();
    assert_eq!(failures, [1, 1, 0]);
}

#[tokio::test]
async fn without_a_server_the_client_is_told_so_and_the_reason_says_why() {
    let server = Server::new().await;
    let name = server.name();
    let rig = Rig::new(&[&server], |options| options.upstream.connect_timeout = Duration::from_millis(200));
    // It says nothing.
    let mut client = rig.client(&connect(V, "dev")).await;
    rig.admit().await;
    let silent = server.accept().await;
    client.expect(&connack(V, 3)).await;
    client.expect_end().await;
    let refused = rig.refused().await;
    assert_eq!(refused.cause, cause("upstream-unavailable"));
    assert_eq!(refused.detail, format!("{name}: no answer in 0.2 s"));
    drop(silent);
    // It is not there.
    drop(server);
    let mut client = rig.client(&connect(Version::Mqtt5, "dev")).await;
    rig.admit().await;
    client.expect(&connack(Version::Mqtt5, 0x88)).await;
    assert!(rig.refused().await.detail.contains("refused"));
}

#[tokio::test]
async fn a_server_that_answers_something_else_is_at_fault() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let answers: [&[u8]; 5] =
        [b"HTTP/1.1 400 Bad Request\r\n", b"\xd0\0", b"\x20\x02\x02\0", b"\xff\xff", b"\xf0\x02\x18\0"];
    for answer in answers {
        let mut client = rig.client(&connect(V, "dev")).await;
        rig.admit().await;
        let mut upstream = server.accept().await;
        upstream.send(answer).await;
        client.expect(&connack(V, 3)).await;
        client.expect_end().await;
        let refused = rig.refused().await;
        assert_eq!(refused.cause, cause("broker-error"), "{}", refused.detail);
        assert!(refused.detail.starts_with(&server.name()), "{}", refused.detail);
        assert_eq!((refused.server.unwrap().address.to_string(), refused.server_code), (server.name(), None));
    }
}

#[tokio::test]
async fn servers_go_down_and_come_up_again() {
    let server = Server::new().await;
    let name = server.name();
    let rig = Rig::new(&[&server], |options| {
        options.upstream.check.interval = Duration::from_millis(20);
    });
    drop(server);
    let change = rig.server_change().await;
    assert_eq!((change.is_up, change.server.address.to_string()), (false, name.clone()));
    assert!(change.detail.contains("refused"), "{}", change.detail);
    let mut client = rig.client(&connect(V, "dev")).await;
    rig.admit().await;
    client.expect(&connack(V, 3)).await;
    let refused = rig.refused().await;
    assert_eq!(refused.detail, format!("{name} is down (Connection refused (os error 111))"));

    let server = Server::at(&name).await;
    assert!(rig.server_change().await.is_up);
    let session = rig.session(&server, V).await;
    assert_eq!(rig.gateway.traffic(session.token).unwrap().packets_in, 1);
}

#[tokio::test]
async fn a_check_may_log_in_and_any_connack_is_a_sign_of_life() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| {
        options.upstream.check.interval = Duration::from_millis(10);
        options.upstream.check.fall = 1;
        options.upstream.check.rise = 1;
        options.upstream.check.kind = CheckKind::Mqtt { client_id: "check".into() };
        options.upstream.header = proxyproto_gateway::HeaderOut::V1;
    });
    for (answer, is_up) in [(&b"\x20\x02\0\x05"[..], true), (b"\xd0\0", false), (b"\x20\x02\0\0", true)] {
        loop {
            let mut upstream = server.accept().await;
            let ports = upstream.0.peer_addr().unwrap().port();
            let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {ports} ");
            upstream.expect(header.as_bytes()).await;
            upstream.read(server.name().rsplit(':').next().unwrap().len() + 2).await;
            upstream
                .expect(&packet(0x10, &[&b"\0\x04MQTT\x04\x02\0\x3c"[..], &string("check")].concat()))
                .await;
            upstream.send(answer).await;
            if is_up {
                upstream.expect(b"\xe0\0").await;
            }
            upstream.expect_end().await;
            if rig.gateway.stats().servers[0].is_up == is_up {
                break;
            }
        }
    }
}

#[tokio::test]
async fn servers_change_while_sessions_go_on() {
    let (old, new) = (Server::new().await, Server::new().await);
    let rig = Rig::new(&[&old], |_| {});
    let mut session = rig.session(&old, V).await;
    rig.gateway.update(options(&[&new])).unwrap();
    let other = rig.session_of(&new, V, &connect(V, "other")).await;
    assert_ne!(other.token, session.token);
    session.upstream.send(b"\xd0\0").await;
    session.client.expect(b"\xd0\0").await;
    // Nobody checks the old one any more, so nobody waits for what a check says.
    drop(session.upstream);
    session.client.expect_end().await;
    drop(session.client);
    assert_eq!(rig.ended().await.cause, cause("upstream-closed"));
    let mut wrong = options(&[&new]);
    wrong.upstream.servers.clear();
    assert_eq!(
        rig.gateway.update(wrong).unwrap_err().to_string(),
        "upstream.servers: at least one is needed"
    );
    assert_eq!(rig.gateway.stats().servers.len(), 1);
}

#[tokio::test]
async fn a_name_that_is_new_is_waited_for_and_checks_go_by_the_new_rules_at_once() {
    let (old, new) = (Server::new().await, Server::new().await);
    let rig = Rig::new(&[&old], |_| {});
    let mut changed = options(&[]);
    let name = new.name().replace("127.0.0.1", "localhost");
    changed.upstream.servers = vec![name.parse().unwrap()];
    rig.gateway.update(changed.clone()).unwrap();
    let session = rig.session(&new, V).await;
    drop(session);
    rig.ended().await;
    // An interval of an hour is over when another is set.
    drop(new);
    changed.upstream.check.interval = Duration::from_millis(10);
    rig.gateway.update(changed).unwrap();
    assert!(!rig.server_change().await.is_up);
}

#[tokio::test]
async fn a_server_that_resets_before_its_answer_is_left_for_the_next() {
    let (first, second) = (Server::new().await, Server::new().await);
    let rig = Rig::new(&[&first, &second], |options| options.upstream.balance = Balance::RoundRobin);
    let mut client = rig.client(&connect(V, "dev")).await;
    rig.admit().await;
    first.accept().await.reset();
    let mut upstream = second.accept().await;
    // The answer comes in two parts, and the rest never.
    upstream.send(&connack(V, 0)[..2]).await;
    upstream.expect(&connect(V, "dev")).await;
    upstream.reset();
    client.expect(&connack(V, 3)).await;
    let refused = rig.refused().await;
    assert_eq!(refused.cause, cause("upstream-unavailable"));
    let reset = "Connection reset by peer (os error 104)";
    let both = [&first, &second].map(|server| format!("{}: {reset}", server.name())).join("; ");
    assert_eq!(refused.detail, both);
    assert_eq!((refused.server.unwrap().address.to_string(), refused.server_code), (second.name(), None));
}

#[tokio::test]
async fn each_server_takes_so_many_clients_and_no_more() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |options| options.upstream.max_connections = Some(1));
    let first = rig.session(&server, V).await;
    let mut second = rig.client(&connect(V, "dev")).await;
    rig.admit().await;
    second.expect(&connack(V, 3)).await;
    assert_eq!(rig.refused().await.detail, format!("{} is full (max_connections 1)", server.name()));
    drop(first);
    rig.ended().await;
    rig.session(&server, V).await;
}

#[tokio::test]
async fn a_name_is_resolved_and_its_addresses_are_servers() {
    let server = Server::new().await;
    let port = server.name().rsplit(':').next().unwrap().to_owned();
    let rig = Rig::new(&[&server], |options| {
        options.upstream.servers = vec![format!("localhost:{port}").parse().unwrap()];
    });
    let mut client = rig.client(&connect(V, "dev")).await;
    rig.admit().await;
    server.accept().await.send(&connack(V, 0)).await;
    client.expect(&connack(V, 0)).await;
    let welcomed = rig.welcomed().await;
    assert_eq!(welcomed.server.as_ref().unwrap().configured.to_string(), format!("localhost:{port}"));
    assert_eq!(welcomed.server.unwrap().address.to_string(), server.name());
}

#[tokio::test]
async fn an_authentication_in_steps_goes_both_ways() {
    let version = Version::Mqtt5;
    let packet = connect_with(version, "dev", 60, b"\x15\0\x03XYZ", None);
    let auth = |code: u8, data: &str| {
        let data = string(data);
        let length = u8::try_from(6 + 1 + data.len()).unwrap();
        [&[0xf0, length + 2, code, length, 0x15, 0, 3, b'X', b'Y', b'Z', 0x16], &data[..]].concat()
    };
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    let mut client = rig.client(&packet).await;
    rig.admit().await;
    let mut upstream = server.accept().await;
    upstream.expect(&packet).await;
    for step in ["one", "two"] {
        upstream.send(&auth(0x18, step)).await;
        client.expect(&auth(0x18, step)).await;
        client.send(&auth(0x18, "answer")).await;
        upstream.expect(&auth(0x18, "answer")).await;
    }
    upstream.send(&connack(version, 0)).await;
    rig.welcomed().await;
    client.expect(&crate::packets::connack_out(version, 65536)).await;
}

/// What the client does, and for which reason it is answered what.
type Case = (&'static [u8], &'static str, &'static [u8]);

#[tokio::test]
async fn an_authentication_that_goes_wrong_ends_and_asks_nobody_else() {
    let version = Version::Mqtt5;
    let with_method = connect_with(version, "dev", 60, b"\x15\0\x03XYZ", None);
    let auth = b"\xf0\x08\x18\x06\x15\0\x03XYZ";
    let (first, second) = (Server::new().await, Server::new().await);
    let rig = Rig::new(&[&first, &second], |options| {
        options.upstream.balance = Balance::RoundRobin;
        options.mqtt.auth_timeout = Duration::from_millis(200);
    });
    let table: [Case; 3] = [
        (b"\xc0\0", "malformed-connect", b"\x20\x03\0\x81\0"),
        (b"", "auth-error", b"\x20\x03\0\x88\0"),
        (b"\xe0\0", "closed-early", b""),
    ];
    for (answer, code, connack) in table {
        let mut client = rig.client(&with_method).await;
        rig.admit().await;
        let mut upstream = accept_either(&first, &second).await;
        upstream.send(auth).await;
        client.expect(auth).await;
        client.send(answer).await;
        client.expect(connack).await;
        let refused = rig.refused().await;
        assert_eq!(refused.cause, cause(code), "{}", refused.detail);
        upstream.expect(&with_method).await;
        upstream.expect_end().await;
    }
    // A server that closes, and one that sends an AUTH to who has not asked for one.
    let mut client = rig.client(&with_method).await;
    rig.admit().await;
    let mut upstream = accept_either(&first, &second).await;
    upstream.send(auth).await;
    client.expect(auth).await;
    client.send(auth).await;
    upstream.expect(&[&with_method[..], auth].concat()).await;
    drop(upstream);
    client.expect(&connack(version, 0x88)).await;
    assert_eq!(rig.refused().await.cause, cause("upstream-unavailable"));
    let mut client = rig.client(&connect(version, "dev")).await;
    rig.admit().await;
    accept_either(&first, &second).await.send(auth).await;
    client.expect(&connack(version, 0x88)).await;
    assert_eq!(rig.refused().await.cause, cause("broker-error"));
}

#[tokio::test]
async fn who_goes_while_it_logs_in_is_not_waited_for() {
    let server = Server::new().await;
    let rig = Rig::new(&[&server], |_| {});
    for version in Version::ALL {
        // While the decision is due.
        let client = rig.client(&connect(version, "dev")).await;
        let login = rig.login().await;
        client.reset();
        let refused = rig.refused().await;
        assert_eq!((refused.cause, refused.token), (cause("closed-early"), Some(login.token)));
        assert!(!rig.gateway.admit(login.token, Admission::default()));
        // While the server has not answered.
        let client = rig.client(&connect(version, "dev")).await;
        rig.admit().await;
        let mut upstream = server.accept().await;
        upstream.expect(&connect(version, "dev")).await;
        client.reset();
        assert_eq!(rig.refused().await.cause, cause("closed-early"));
        upstream.expect_end().await;
        // An operator's word counts then too.
        let mut client = rig.client(&connect(version, "dev")).await;
        let token = rig.admit().await;
        let mut upstream = server.accept().await;
        upstream.expect(&connect(version, "dev")).await;
        assert!(rig.gateway.end(token, cause("blocked"), ""));
        client.expect(&connack(version, if version == Version::Mqtt5 { 0x8a } else { 5 })).await;
        assert_eq!(rig.refused().await.cause, cause("blocked"));
        upstream.expect_end().await;
    }
    // Before its CONNECT is whole.
    for bytes in [&b""[..], b"\x10\x10"] {
        drop(rig.client(bytes).await);
        let refused = rig.refused().await;
        assert_eq!(
            (refused.cause, refused.detail),
            (cause("closed-early"), format!("after {} bytes", bytes.len()))
        );
    }
}

#[tokio::test]
async fn so_many_may_be_without_their_connack_and_no_more() {
    let server = Server::new().await;
    let mut serving = proxyproto_gateway::ListenerOptions::new("tcp");
    serving.max_unauthenticated = 2;
    let listening = proxyproto_gateway::acceptor::Options::default()
        .proxy_protocol(proxyproto_gateway::acceptor::ProxyProtocol::Off);
    let rig = Rig::with(&[&server], listening, serving, |_| {});
    let first = rig.client(&connect(V, "dev")).await;
    let login = rig.login().await;
    let _second = rig.client(b"").await;
    rig.until(|stats| stats.listeners[0].unauthenticated == 2).await;
    let mut third = rig.client(b"").await;
    third.expect_end().await;
    assert_eq!(rig.refused().await.cause, cause("busy"));
    // A session is not among them.
    rig.gateway.admit(login.token, Admission::default());
    let mut upstream = server.accept().await;
    upstream.send(&connack(V, 0)).await;
    rig.welcomed().await;
    rig.until(|stats| stats.listeners[0].unauthenticated == 1).await;
    let _fourth = rig.client(&connect(V, "dev")).await;
    rig.login().await;
    drop(first);
}

async fn accept_either(first: &Server, second: &Server) -> Peer {
    tokio::select! {
        peer = first.accept() => peer,
        peer = second.accept() => peer,
    }
}
