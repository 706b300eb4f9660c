//! Many random packets in random pieces, both ways at once: not one byte is lost or changed, and the packets are counted.
//!
//! `GATEWAY_PACKETS` says how many there are in all; the default is for every day.

use proxyproto_gateway::mqtt::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::packets::{DISCONNECT, PINGREQ, PINGRESP, connack_out, connect, packet, publish};
use crate::rig::{Rig, Server, Session, cause, soon};

#[tokio::test]
async fn no_byte_is_lost_or_changed() {
    let packets = std::env::var("GATEWAY_PACKETS").map_or(60_000, |count| count.parse().unwrap());
    let server = Server::new().await;
    for (strict, version) in [(false, Version::Mqtt311), (false, Version::Mqtt5), (true, Version::Mqtt311)] {
        let rig = Rig::new(&[&server], |options| options.mqtt.strict = strict);
        let Session { client, upstream, token } = rig.session(&server, version).await;
        let (client_reads, client_writes) = client.0.into_split();
        let (server_reads, server_writes) = upstream.0.into_split();
        let count = packets / 6;
        let (up, down) = (Stream::new(11, version, count, true), Stream::new(23, version, count, false));
        let (sent, got, back, heard) = tokio::join!(
            write(client_writes, up.clone()),
            read(server_reads, up),
            write(server_writes, down.clone()),
            read(client_reads, down),
        );
        assert_eq!(sent.1, got);
        assert_eq!(back.1, heard);
        // The DISCONNECT that ends it was not heard by the server's script.
        drop((sent.0, back.0));
        let ended = rig.ended().await;
        assert_eq!((ended.token, ended.cause), (token, cause("disconnect")));
        let traffic = ended.traffic;
        assert_eq!((traffic.packets_in, traffic.packets_out), (count + 2, count + 1));
        let bytes_in = sent.1 + (connect(version, "dev").len() + DISCONNECT.len()) as u64;
        let bytes_out = back.1 + connack_out(version, 65536).len() as u64;
        assert_eq!((traffic.bytes_in, traffic.bytes_out), (bytes_in, bytes_out));
    }
}

/// The same packets for the same seed.
#[derive(Clone)]
struct Stream {
    random: Random,
    version: Version,
    left: u64,
    is_client: bool,
}

impl Stream {
    fn new(seed: u64, version: Version, count: u64, is_client: bool) -> Self {
        Self { random: Random(seed), version, left: count, is_client }
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.left = self.left.checked_sub(1)?;
        let id = u16::try_from(self.random.below(65_535) + 1).unwrap().to_be_bytes();
        Some(match (self.random.below(10), self.is_client) {
            (0, true) => PINGREQ.to_vec(),
            (0, false) => PINGRESP.to_vec(),
            (1, _) => packet(0x40, &id),
            (2, true) => {
                let properties: &[u8] = if self.version == Version::Mqtt5 { b"\0" } else { b"" };
                packet(0x82, &[&id[..], properties, b"\0\x03a/b\x01"].concat())
            }
            (2, false) if self.version == Version::Mqtt311 => packet(0x90, &[&id[..], b"\x01"].concat()),
            (3, _) => self.publish(20_000),
            (4, _) => self.publish(600),
            _ => self.publish(90),
        })
    }

    fn publish(&mut self, most: u64) -> Vec<u8> {
        let size = usize::try_from(self.random.below(most)).unwrap();
        let message: Vec<u8> = (0..size).map(|_| u8::try_from(self.random.below(256)).unwrap()).collect();
        publish(self.version, "a/topic", &message)
    }
}

/// Writes all packets in random pieces; gives how many bytes they have.
async fn write(mut half: OwnedWriteHalf, mut stream: Stream) -> (OwnedWriteHalf, u64) {
    let mut cuts = Random(stream.random.0 ^ 0xfeed);
    let mut waiting = Vec::new();
    let mut sent = 0;
    let is_client = stream.is_client;
    while let Some(packet) = stream.next() {
        waiting.extend(packet);
        if waiting.len() as u64 > cuts.below(3000) {
            let whole = waiting.len();
            let keep = usize::try_from(cuts.below(40)).unwrap().min(whole);
            soon(half.write_all(&waiting[..whole - keep])).await.unwrap();
            sent += (whole - keep) as u64;
            waiting.drain(..whole - keep);
        }
        if cuts.below(50) == 0 {
            tokio::task::yield_now().await;
        }
    }
    sent += waiting.len() as u64;
    soon(half.write_all(&waiting)).await.unwrap();
    if is_client {
        soon(half.write_all(DISCONNECT)).await.unwrap();
    }
    (half, sent)
}

/// Reads all packets, and compares each byte; gives how many there are.
async fn read(mut half: OwnedReadHalf, mut stream: Stream) -> u64 {
    let mut got = 0;
    let mut bytes = vec![0; 32 * 1024];
    while let Some(packet) = stream.next() {
        let place = &mut bytes[..packet.len()];
        soon(half.read_exact(place)).await.unwrap();
        assert!(place == packet, "a byte has changed between {got} and {}", got + packet.len() as u64);
        got += packet.len() as u64;
    }
    got
}

/// xorshift64*: small, and the same everywhere.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
