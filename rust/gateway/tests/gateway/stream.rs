//! Clients of a broker in this process, each on a stream.

use std::os::fd::OwnedFd;

use proxyproto_gateway::mqtt::{Version, Versions};
use proxyproto_gateway::{Admission, Options, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::packets::{DISCONNECT, connack, connect, publish};
use crate::rig::{Peer, Rig, cause, soon};

fn in_process(options: &mut Options) {
    options.in_process = true;
    options.mqtt.strict = true;
    options.upstream.versions = Versions::of(&[Version::Mqtt311]);
}

/// A client whose CONNECT has come, and its stream at the broker.
async fn admitted(rig: &Rig) -> (Peer, Token, UnixStream) {
    let client = rig.client(&connect(Version::Mqtt311, "dev")).await;
    let token = rig.login().await.token;
    let (broker, ours) = UnixStream::pair().unwrap();
    let mut admission = Admission::default();
    admission.stream = Some(OwnedFd::from(ours.into_std().unwrap()));
    assert!(rig.gateway.admit(token, admission));
    (client, token, broker)
}

/// A session that has begun.
async fn session(rig: &Rig) -> (Peer, Token, UnixStream) {
    let (mut client, token, mut broker) = admitted(rig).await;
    broker.write_all(&connack(Version::Mqtt311, 0)).await.unwrap();
    let welcomed = rig.welcomed().await;
    assert_eq!((welcomed.token, welcomed.server, &*welcomed.client_id), (token, None, "dev"));
    client.expect(&connack(Version::Mqtt311, 0)).await;
    (client, token, broker)
}

async fn read_all(broker: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(broker.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn what_a_client_sends_comes_to_its_stream_and_the_answers_back() {
    let rig = Rig::new(&[], in_process);
    let (mut client, _token, mut broker) = session(&rig).await;
    let (there, back) = (publish(Version::Mqtt311, "a", b"there"), publish(Version::Mqtt311, "b", b"back"));
    broker.write_all(&back).await.unwrap();
    client.expect(&back).await;
    client.send(&[&there[..], DISCONNECT].concat()).await;
    assert_eq!(read_all(&mut broker).await, [&there[..], DISCONNECT].concat());
    drop(broker);
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("disconnect"));
}

#[tokio::test]
async fn a_broker_that_refuses_is_passed_on_and_one_that_fails_is_at_fault() {
    let rig = Rig::new(&[], in_process);
    let table: [(&[u8], &str, u8); 4] = [
        (&[0x20, 2, 0, 5], "bad-credentials", 5),
        (b"", "broker-error", 3),
        (b"\xd0\0", "broker-error", 3),
        (b"\x20\x02\x07\x00", "broker-error", 3),
    ];
    for (answer, reason, code) in table {
        let (mut client, token, mut broker) = admitted(&rig).await;
        broker.write_all(answer).await.unwrap();
        drop(broker);
        client.expect(&connack(Version::Mqtt311, code)).await;
        let refused = rig.refused().await;
        assert_eq!((refused.token, refused.cause, refused.server), (Some(token), cause(reason), None));
    }
}

#[tokio::test]
async fn a_broker_that_lets_go_of_a_session_is_at_fault() {
    let rig = Rig::new(&[], in_process);
    let (mut client, _token, broker) = session(&rig).await;
    drop(broker);
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("broker-error"));
}

#[tokio::test]
async fn whoever_ends_a_session_closes_its_stream() {
    let rig = Rig::new(&[], in_process);
    let (mut client, token, mut broker) = session(&rig).await;
    assert!(rig.gateway.end(token, cause("administrative"), ""));
    assert!(read_all(&mut broker).await.is_empty());
    // It is told, and the client sees it, when the broker has let go.
    assert!(rig.gateway.take().is_empty());
    drop(broker);
    client.expect_end().await;
    assert_eq!(rig.ended().await.cause, cause("administrative"));
}

#[tokio::test]
async fn a_client_that_closes_its_side_while_it_waits_is_seen() {
    let rig = Rig::new(&[], in_process);
    let mut client = rig.client(&connect(Version::Mqtt311, "dev")).await;
    let token = rig.login().await.token;
    assert!(rig.gateway.can_send(token));
    client.shut_down().await;
    soon(async {
        while rig.gateway.can_send(token) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!rig.gateway.can_send(Token::new(0)));
}

#[tokio::test]
async fn a_client_without_a_stream_finds_no_server() {
    let rig = Rig::new(&[], in_process);
    let mut client = rig.client(&connect(Version::Mqtt311, "dev")).await;
    rig.admit().await;
    client.expect(&connack(Version::Mqtt311, 3)).await;
    assert_eq!(rig.refused().await.cause, cause("upstream-unavailable"));
}
