//! WebSocket in front, in TLS and without: the way to the broker, what is told of a client, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use proxyproto_gateway::acceptor::{self, AddressSet, ProxyProtocol};
use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{
    ForwardedOptions, ListenerOptions, Options, Stats, WebSocketOptions, WebSocketServer,
};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::packets::{DISCONNECT, PINGREQ, PINGRESP, connack, connect};
use crate::rig::{Peer, Rig, Server, V1, cause};
use crate::secure::{Authority, Secure};

const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

fn request(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// A frame of a client.
fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header =
        FrameHeader { is_final, opcode, mask: Some([1, 0x82, 0x43, 0xff]), ..FrameHeader::default() };
    let mut wire = Vec::new();
    Frame::from_payload(header, payload.to_vec().into()).format(&mut wire).unwrap();
    wire
}

fn binary(payload: &[u8]) -> Vec<u8> {
    frame(OpCode::Data(Data::Binary), true, payload)
}

/// What the gateway makes of a short packet.
fn message(packet: &[u8]) -> Vec<u8> {
    [&[0x82, u8::try_from(packet.len()).unwrap()], packet].concat()
}

const NORMAL_CLOSURE: &[u8] = b"\x88\x02\x03\xe8";

fn serving(change: impl FnOnce(&mut WebSocketOptions)) -> ListenerOptions {
    let mut options = WebSocketOptions::default();
    change(&mut options);
    let mut serving = ListenerOptions::new("ws");
    serving.channel = Some(Arc::new(WebSocketServer::new(options).unwrap()));
    serving
}

/// A gateway whose listener expects a header and then an upgrade.
fn rig(server: &Server, change: impl FnOnce(&mut Options)) -> Rig {
    let proxies = ["127.0.0.1/32".parse().unwrap()].into_iter().collect();
    Rig::with(&[server], acceptor::Options::default().trusted(proxies), serving(|_| ()), change)
}

async fn upgraded(rig: &Rig, header: &[u8]) -> Peer {
    let mut client = rig.client(&[header, &request("/mqtt", SUBPROTOCOL)].concat()).await;
    client.expect(SWITCHED).await;
    client
}

/// Lets the client in that has sent its CONNECT.
async fn let_in(rig: &Rig, server: &Server) -> Peer {
    rig.admit().await;
    let mut upstream = server.accept().await;
    upstream.expect(&connect(Version::Mqtt311, "dev")).await;
    upstream.send(&connack(Version::Mqtt311, 0)).await;
    rig.welcomed().await;
    upstream
}

#[tokio::test]
async fn a_connect_in_three_fragments_and_two_packets_in_one_message() {
    let server = Server::new().await;
    let rig = rig(&server, |_| ());
    let mut client = upgraded(&rig, V1).await;
    let connect = connect(Version::Mqtt311, "dev");
    for (opcode, is_final, piece) in [
        (OpCode::Data(Data::Binary), false, &connect[..1]),
        (OpCode::Data(Data::Continue), false, &connect[1..9]),
        (OpCode::Control(Control::Ping), true, b"there?"),
        (OpCode::Data(Data::Continue), true, &connect[9..]),
    ] {
        client.send(&frame(opcode, is_final, piece)).await;
    }
    client.expect(b"\x8a\x06there?").await;
    let mut upstream = let_in(&rig, &server).await;
    client.expect(&message(b"\x20\x02\0\0")).await;
    client.send(&binary(&[PINGREQ, b"\x30\x04\0\x01ax"].concat())).await;
    upstream.expect(&[PINGREQ, b"\x30\x04\0\x01ax"].concat()).await;
    client.send(&[binary(&PINGREQ[..1]), binary(&PINGREQ[1..])].concat()).await;
    upstream.expect(PINGREQ).await;
    upstream.send(PINGRESP).await;
    client.expect(&message(PINGRESP)).await;
    client.send(&binary(DISCONNECT)).await;
    upstream.expect(DISCONNECT).await;
    drop(upstream);
    client.expect(NORMAL_CLOSURE).await;
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("disconnect"));
}

#[tokio::test]
async fn a_close_of_the_client_is_answered() {
    let server = Server::new().await;
    let rig = rig(&server, |_| ());
    let mut client = upgraded(&rig, V1).await;
    client.send(&binary(&connect(Version::Mqtt311, "dev"))).await;
    let mut upstream = let_in(&rig, &server).await;
    client.expect(&message(b"\x20\x02\0\0")).await;
    client.send(&frame(OpCode::Control(Control::Close), true, b"\x03\xe9bye")).await;
    client.expect(b"\x88\x02\x03\xe9").await;
    upstream.expect_end().await;
    drop(upstream);
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("connection-lost"));
}

/// A message breaks a rule behind one that does not. That one still goes upstream, and the client learns why it is closed.
#[tokio::test]
async fn what_breaks_a_rule_of_websocket_ends_the_session() {
    let server = Server::new().await;
    let rig = rig(&server, |options| options.mqtt.max_packet_size = 70_000);
    let unmasked = b"\x82\x00";
    for (wrong, code, why) in [
        (frame(OpCode::Data(Data::Text), true, b"hi"), 1003_u16, "malformed-packet"),
        (binary(&vec![0; 65_537]), 1009, "packet-too-large"),
        (unmasked.to_vec(), 1002, "connection-lost"),
    ] {
        let mut client = upgraded(&rig, V1).await;
        client.send(&binary(&connect(Version::Mqtt311, "dev"))).await;
        let mut upstream = let_in(&rig, &server).await;
        client.expect(&message(b"\x20\x02\0\0")).await;
        client.send(&[binary(PINGREQ), wrong].concat()).await;
        upstream.expect(PINGREQ).await;
        upstream.expect_end().await;
        let close = client.read_all().await;
        assert_eq!(close[..1], [0x88]);
        assert_eq!(close[2..4], code.to_be_bytes());
        let ended = rig.ended().await;
        assert_eq!(ended.cause, cause(why), "{}", ended.detail);
    }
}

#[tokio::test]
async fn a_rule_that_is_broken_before_the_session_is_told_alike() {
    let server = Server::new().await;
    let rig = rig(&server, |_| ());
    let mut client = upgraded(&rig, V1).await;
    client.send(&frame(OpCode::Data(Data::Text), true, b"hi")).await;
    assert_eq!(client.read_all().await[..4], *b"\x88\x1c\x03\xeb");
    let refused = rig.refused().await;
    assert_eq!((refused.cause, &*refused.detail), (cause("malformed-packet"), "MQTT needs binary messages"));
    let mut client = upgraded(&rig, V1).await;
    client.send(&binary(PINGREQ)).await;
    client.expect(NORMAL_CLOSURE).await;
    assert_eq!(rig.refused().await.cause, cause("malformed-connect"));
}

#[tokio::test]
async fn a_rule_that_is_broken_while_a_login_waits_is_told_alike() {
    let server = Server::new().await;
    let rig = rig(&server, |_| ());
    for (wrong, why, detail) in [
        (frame(OpCode::Data(Data::Text), true, b"hi"), "malformed-packet", "MQTT needs binary messages"),
        (b"\x82\x00".to_vec(), "closed-early", "a frame that is not masked"),
    ] {
        let mut client = upgraded(&rig, V1).await;
        client.send(&binary(&connect(Version::Mqtt311, "dev"))).await;
        let token = rig.login().await.token;
        client.send(&wrong).await;
        let refused = rig.refused().await;
        assert_eq!((refused.cause, &*refused.detail, refused.token), (cause(why), detail, Some(token)));
        assert_eq!(client.read_all().await[..1], [0x88]);
    }
}

#[tokio::test]
async fn a_refused_login_is_answered_in_a_message() {
    let server = Server::new().await;
    let rig = rig(&server, |_| ());
    let mut client = upgraded(&rig, V1).await;
    client.send(&binary(&connect(Version::Mqtt311, "dev"))).await;
    let token = rig.login().await.token;
    rig.gateway.refuse(token, cause("bad-credentials"), "");
    client.expect(&[&message(b"\x20\x02\0\x05"), NORMAL_CLOSURE].concat()).await;
    client.expect_end().await;
    assert_eq!(rig.refused().await.arrival.client().to_string(), "192.0.2.1:12345");
}

#[tokio::test]
async fn a_request_that_is_refused_is_answered_and_told_with_the_real_address() {
    let server = Server::new().await;
    let rig = rig(&server, |_| ());
    let mqtt = connect(Version::Mqtt311, "dev");
    let table: [(&[u8], &str, &str, &str); 5] = [
        (&request("/other", SUBPROTOCOL), "HTTP/1.1 404 ", "ws-failed", "path '/other', MQTT is at /mqtt"),
        (
            &request("/mqtt", "Sec-WebSocket-Protocol: chat\r\n"),
            "HTTP/1.1 400 ",
            "ws-failed",
            "the client offers no sub-protocol that is served (mqtt)",
        ),
        (&mqtt, "", "ws-failed", "not an upgrade request but MQTT packet type 1"),
        (b"GET /mqtt HTTP/1.1\r\n", "", "ws-failed", "closed before the upgrade request was whole"),
        (b"", "", "closed-early", "closed before the upgrade request was whole"),
    ];
    for (sent, answer, why, detail) in table {
        let mut client = rig.client(&[V1, sent].concat()).await;
        client.shut_down().await;
        let answered = String::from_utf8(client.read_all().await).unwrap();
        assert!(answered.starts_with(answer) && answered.is_empty() == answer.is_empty(), "{answered}");
        let refused = rig.refused().await;
        assert_eq!(refused.cause, cause(why));
        assert!(refused.detail.starts_with(detail), "{}", refused.detail);
        assert_eq!(refused.arrival.client().to_string(), "192.0.2.1:12345");
    }
}

#[tokio::test]
async fn an_upgrade_that_does_not_come_is_a_timeout_and_then_it_is_the_connect() {
    let server = Server::new().await;
    let rig = rig(&server, |options| {
        options.mqtt.ws_timeout = Duration::from_millis(300);
        options.mqtt.connect_timeout = Duration::from_millis(600);
    });
    let mut silent = rig.client(&[V1, b"GET /mqtt"].concat()).await;
    silent.expect_end().await;
    let refused = rig.refused().await;
    assert_eq!((refused.cause, &*refused.detail), (cause("ws-failed"), "timeout"));
    let mut client = upgraded(&rig, V1).await;
    client.expect(NORMAL_CLOSURE).await;
    assert_eq!(rig.refused().await.cause, cause("no-connect"));
}

#[tokio::test]
async fn a_trusted_proxy_of_http_names_the_client() {
    let server = Server::new().await;
    let denied = AddressSet::new();
    denied.add("198.51.100.0/24".parse().unwrap(), None);
    let mut forwarded = ForwardedOptions::new(["127.0.0.0/8".parse().unwrap()].into_iter().collect());
    forwarded.denied = denied;
    let listening = acceptor::Options::default().proxy_protocol(ProxyProtocol::Off);
    let rig =
        Rig::with(&[&server], listening, serving(|options| options.forwarded = Some(forwarded)), |_| ());
    let by = |addresses: &str| request("/mqtt", &format!("{SUBPROTOCOL}X-Forwarded-For: {addresses}\r\n"));
    let mut client = rig.client(&by("6.6.6.6, 203.0.113.9, 127.0.0.7")).await;
    client.expect(SWITCHED).await;
    client.send(&binary(&connect(Version::Mqtt311, "dev"))).await;
    assert_eq!(rig.login().await.arrival.client().to_string(), "203.0.113.9:0");
    drop(client);
    assert_eq!(rig.refused().await.cause, cause("closed-early"));
    let mut client = rig.client(&by("203.0.113.9, unknown")).await;
    assert!(client.read_all().await.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(rig.refused().await.detail, "x-forwarded-for holds 'unknown', which is not an address");
    let mut client = rig.client(&by("198.51.100.1")).await;
    client.expect_end().await;
    let refused = rig.refused().await;
    assert_eq!(
        (refused.cause, refused.arrival.client().to_string()),
        (cause("denied"), "198.51.100.1:0".into())
    );
    // The acceptor looks only at what is there at once.
    let is_there = |count| move |stats: &Stats| stats.listeners[0].unauthenticated == count;
    rig.until(is_there(0)).await;
    let mut client = rig.client(b"").await;
    rig.until(is_there(1)).await;
    client.send(V1).await;
    client.expect_end().await;
    assert_eq!(rig.refused().await.cause, cause("unexpected-header"));
}

#[tokio::test]
async fn a_websocket_in_tls() {
    let (server, authority) = (Server::new().await, Authority::new());
    let tls = authority.server(|_| ());
    let mut serving = ListenerOptions::new("wss");
    let websocket = WebSocketServer::new(WebSocketOptions::default()).unwrap().in_tls(tls);
    serving.channel = Some(Arc::new(websocket));
    let proxies = ["127.0.0.1/32".parse().unwrap()].into_iter().collect();
    let rig = Rig::with(&[&server], acceptor::Options::default().trusted(proxies), serving, |options| {
        options.mqtt.ws_timeout = Duration::from_secs(1);
    });
    let mut client = authority.connect(rig.client(V1).await, None).await;
    client.send(&request("/mqtt", SUBPROTOCOL)).await;
    client.expect(SWITCHED).await;
    client.send(&binary(&connect(Version::Mqtt311, "dev"))).await;
    let mut upstream = let_in(&rig, &server).await;
    client.expect(&message(b"\x20\x02\0\0")).await;
    let long = [&b"\x30\x87\xfa\x01\0\x01a"[..], &vec![7; 0x7d04]].concat();
    client.send(&binary(&long)).await;
    upstream.expect(&long).await;
    client.send(&frame(OpCode::Data(Data::Text), true, b"hi")).await;
    upstream.expect_end().await;
    client.expect(b"\x88\x1c\x03\xebMQTT needs binary messages").await;
    client.expect_goodbye().await;
    assert_eq!(rig.ended().await.cause, cause("malformed-packet"));
    let failing = |sent: &'static [u8]| {
        let (rig, authority) = (&rig, &authority);
        async move {
            let mut client: Secure = authority.connect(rig.client(V1).await, None).await;
            client.send(sent).await;
            client
        }
    };
    failing(b"\x10\x1e\0\x04MQTT").await.expect_goodbye().await;
    let refused = rig.refused().await;
    assert_eq!(refused.cause, cause("ws-failed"));
    assert!(
        refused.detail.starts_with("not an upgrade request but MQTT packet type 1"),
        "{}",
        refused.detail
    );
    assert_eq!(refused.arrival.facts.tls.as_ref().unwrap().version, "TLSv1.3");
    failing(b"GET ").await.expect_goodbye().await;
    let refused = rig.refused().await;
    assert_eq!((refused.cause, &*refused.detail), (cause("ws-failed"), "timeout"));
    rig.client(&[V1, b"GET / HTTP/1.1\r\n\r\n"].concat()).await.expect_end().await;
    assert_eq!(rig.refused().await.cause, cause("tls-failed"));
}
