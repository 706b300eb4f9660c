//! The seam for TLS and WebSocket, held by a channel that is neither: a greeting, then records of a length and masked bytes.

use std::sync::Arc;
use std::time::Duration;

use proxyproto_gateway::acceptor::{self, ProxyProtocol};
use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{
    Channel, ChannelFactory, ChannelFault, Facts, Flow, ListenerOptions, Remote, Stage, TlsFacts,
};

use crate::packets::{DISCONNECT, connack, connack_out, connect, publish};
use crate::rig::{Peer, Rig, Server, V1, cause};

const GREETING: &[u8] = b"hello";
const ANSWER: &[u8] = b"welcome";
const GOODBYE: &[u8] = b"\0\0";
const V: Version = Version::Mqtt311;

#[derive(Debug)]
struct Masks;

impl ChannelFactory for Masks {
    fn open(&self, remote: Remote<'_>) -> Box<dyn Channel> {
        let is_ours = matches!(remote, Remote::Server(_));
        Box::new(Mask { is_ours, is_open: false, kept: Vec::new() })
    }
}

struct Mask {
    /// We have begun it.
    is_ours: bool,
    is_open: bool,
    kept: Vec<u8>,
}

impl Channel for Mask {
    fn stage(&self) -> Stage {
        if self.is_open { Stage::Open } else { Stage::Tls }
    }

    fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        if self.is_ours {
            wire.extend_from_slice(GREETING);
        }
        Ok(())
    }

    fn decode(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        self.kept.extend_from_slice(received);
        if !self.is_open {
            let expected = if self.is_ours { ANSWER } else { GREETING };
            if self.kept.len() < expected.len() {
                return Ok(Flow::Open);
            }
            if !self.kept.starts_with(expected) {
                answer.extend_from_slice(b"alert");
                return Err(ChannelFault::new("no greeting"));
            }
            self.kept.drain(..expected.len());
            self.is_open = true;
            if !self.is_ours {
                answer.extend_from_slice(ANSWER);
            }
        }
        while let Some((head, rest)) = self.kept.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*head));
            if length == 0 {
                return Ok(Flow::Ended);
            }
            let Some(record) = rest.get(..length) else { break };
            mqtt.extend(record.iter().map(|byte| byte ^ 0x5a));
            self.kept.drain(..length + 2);
        }
        Ok(Flow::Open)
    }

    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        wire.extend(masked(mqtt));
        Ok(())
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(GOODBYE);
    }

    fn facts(&mut self) -> Facts {
        let mut facts = Facts::default();
        let mut tls = TlsFacts::default();
        tls.version = if self.is_open { "Mask 1".into() } else { "Mask 0".into() };
        facts.tls = Some(tls);
        facts.forwarded = Some("203.0.113.9:1".parse().unwrap());
        facts
    }
}

fn masked(mqtt: &[u8]) -> Vec<u8> {
    let record = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        length.into_iter().chain(piece.iter().map(|byte| byte ^ 0x5a)).collect::<Vec<u8>>()
    };
    mqtt.chunks(10_000).flat_map(record).collect()
}

fn rig(server: &Server) -> Rig {
    let mut serving = ListenerOptions::new("masked");
    serving.channel = Some(Arc::new(Masks));
    let listening = acceptor::Options::default().proxy_protocol(ProxyProtocol::Off);
    Rig::with(&[server], listening, serving, |options| options.mqtt.tls_timeout = Duration::from_millis(100))
}

#[tokio::test]
async fn a_channel_stands_in_front_of_the_client() {
    let server = Server::new().await;
    let rig = rig(&server);
    let packet = connect(V, "dev");
    for split in 0..5 {
        let bytes = [GREETING, &masked(&packet)].concat();
        let mut client = rig.client(&bytes[..split]).await;
        tokio::task::yield_now().await;
        client.send(&bytes[split..]).await;
        let login = rig.login().await;
        assert_eq!(login.arrival.facts.tls.as_ref().unwrap().version, "Mask 1");
        assert_eq!(login.arrival.client().to_string(), "203.0.113.9:1");
        rig.gateway.admit(login.token, proxyproto_gateway::Admission::default());
        let mut upstream = server.accept().await;
        upstream.expect(&packet).await;
        upstream.send(&connack(V, 0)).await;
        rig.welcomed().await;
        client.expect(&[ANSWER, &masked(&connack_out(V, 65536))].concat()).await;

        let (there, back) = (publish(V, "t", &vec![1; 30_000]), publish(V, "t", b"back"));
        client.send(&masked(&there)).await;
        upstream.expect(&there).await;
        upstream.send(&back).await;
        client.expect(&masked(&back)).await;
        client.send(&[&masked(DISCONNECT), GOODBYE].concat()).await;
        upstream.expect(DISCONNECT).await;
        upstream.expect_end().await;
        drop(upstream);
        client.expect(GOODBYE).await;
        client.expect_end().await;
        drop(client);
        let ended = rig.ended().await;
        assert_eq!(ended.cause, cause("disconnect"));
        assert_eq!(ended.traffic.bytes_in, (packet.len() + there.len() + DISCONNECT.len()) as u64);
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_told_with_its_detail_and_its_answer() {
    let server = Server::new().await;
    let rig = rig(&server);
    let mut client = rig.client(b"GET / HTTP/1.1\r\n").await;
    client.expect(b"alert").await;
    client.expect(GOODBYE).await;
    client.expect_end().await;
    drop(client);
    let refused = rig.refused().await;
    assert_eq!((refused.cause, &*refused.detail), (cause("tls-failed"), "no greeting"));
    assert_eq!(refused.arrival.facts.tls.as_ref().unwrap().version, "Mask 0");
    let mut silent = rig.client(b"hel").await;
    silent.read_all().await;
    assert_eq!(rig.refused().await.detail, "timeout");
    drop(rig.client(b"hel").await);
    assert_eq!(rig.refused().await.detail, "closed");
}

#[tokio::test]
async fn a_client_that_closes_its_channel_while_it_logs_in_has_gone() {
    let server = Server::new().await;
    let rig = rig(&server);
    let _client = rig.client(&[GREETING, &masked(&connect(V, "dev")), GOODBYE].concat()).await;
    rig.login().await;
    assert_eq!(rig.refused().await.cause, cause("closed-early"));
}

#[tokio::test]
async fn a_channel_stands_in_front_of_the_server_and_the_header_before_it() {
    let server = Server::new().await;
    let proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let listening = acceptor::Options::default().trusted(proxies);
    let rig = Rig::with(&[&server], listening, ListenerOptions::new("tcp"), |options| {
        options.upstream.channel = Some(Arc::new(Masks));
        options.upstream.header = proxyproto_gateway::HeaderOut::V1;
        options.upstream.connect_timeout = Duration::from_millis(200);
    });
    let packet = connect(Version::Mqtt5, "dev");
    let mut client = rig.client(&[V1, &packet].concat()).await;
    rig.admit().await;
    let mut upstream: Peer = server.accept().await;
    upstream.expect(&[V1, GREETING].concat()).await;
    upstream.send(ANSWER).await;
    upstream.expect(&masked(&packet)).await;
    upstream.send(&masked(&connack(Version::Mqtt5, 0))).await;
    let token = rig.welcomed().await.token;
    client.expect(&connack_out(Version::Mqtt5, 65536)).await;
    let message = publish(Version::Mqtt5, "t", b"m");
    client.send(&message).await;
    upstream.expect(&masked(&message)).await;
    upstream.send(&masked(&message)).await;
    client.expect(&message).await;
    rig.gateway.end(token, cause("administrative"), "");
    client.expect(b"\xe0\x01\x98").await;
    upstream.expect_end().await;
    drop(client);
    rig.ended().await;
    // One that does not answer the greeting has no answer to the CONNECT either.
    let mut client = rig.client(&[V1, &packet].concat()).await;
    rig.admit().await;
    let _silent = server.accept().await;
    client.expect(&connack(Version::Mqtt5, 0x88)).await;
    assert!(rig.refused().await.detail.contains("no answer in 0.2 s"));
}
