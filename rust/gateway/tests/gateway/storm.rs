//! Many clients, servers and operators that do anything at any moment. Whatever they do, each login that was told has one
//! last event, and nothing is left of it. The pauses are what peers do; nothing is waited for by time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proxyproto_gateway::mqtt::{Reason, Version};
use proxyproto_gateway::{Admission, Event, Replace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::packets::{DISCONNECT, PINGREQ, connack, connect, publish};
use crate::random::Random;
use crate::rig::{Peer, Rig, Server, soon};

const CLIENTS: u64 = 400;

#[tokio::test]
async fn each_login_has_one_last_event_and_nothing_is_left() {
    let servers = [Arc::new(Server::new().await), Arc::new(Server::new().await)];
    let rig = Rig::new(&[&servers[0], &servers[1]], |options| {
        options.mqtt.connect_timeout = Duration::from_millis(300);
        options.mqtt.auth_timeout = Duration::from_millis(300);
        options.upstream.connect_timeout = Duration::from_millis(300);
    });
    let mut brokers = JoinSet::new();
    for server in servers {
        brokers.spawn(async move {
            let mut random = Random(7);
            loop {
                tokio::spawn(serve(server.accept().await, random.below(u64::MAX)));
            }
        });
    }
    let mut clients = JoinSet::new();
    for seed in 1..=CLIENTS {
        let stream = rig.client(b"").await;
        clients.spawn(behave(stream.0, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if seed % 20 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    // What is known of each token: nothing more comes after `true`.
    let mut tokens: HashMap<_, bool> = HashMap::new();
    let mut random = Random(99);
    let mut events = 0;
    while events < CLIENTS {
        let (token, is_last) = match rig.event().await {
            Event::Login(login) => {
                match random.below(6) {
                    0 => drop(rig.gateway.refuse(login.token, Reason::BadCredentials, "")),
                    1 => {}
                    _ => {
                        let mut admission = Admission::default();
                        admission.password = Replace::Without;
                        rig.gateway.admit(login.token, admission);
                    }
                }
                (Some(login.token), false)
            }
            Event::Welcomed(welcomed) => {
                if random.below(4) == 0 {
                    rig.gateway.end(welcomed.token, Reason::Administrative, "");
                }
                (Some(welcomed.token), false)
            }
            Event::Refused(refused) => (refused.token, true),
            Event::Ended(ended) => (Some(ended.token), true),
            other => panic!("{other:?}"),
        };
        if let Some(token) = token {
            assert!(!tokens.insert(token, is_last).unwrap_or(false), "an event after the last one");
        }
        events += u64::from(is_last);
    }
    assert!(tokens.values().all(|is_over| *is_over));
    while soon(clients.join_next()).await.is_some() {}
    rig.until(|stats| {
        let connections: usize = stats.workers.iter().sum();
        let upstream: usize = stats.servers.iter().map(|server| server.connections).sum();
        (stats.sessions, connections, upstream, stats.listeners[0].unauthenticated) == (0, 0, 0, 0)
    })
    .await;
}

/// A client that does some of what clients do, and some of what they must not.
async fn behave(mut stream: TcpStream, seed: u64) {
    let mut random = Random(seed);
    let version = Version::ALL[usize::try_from(random.below(3)).unwrap()];
    let mut words = connect(version, &format!("dev-{}", random.below(50)));
    match random.below(8) {
        0 => words.truncate(usize::try_from(random.below(10)).unwrap()),
        1 => words[2] ^= 0xff,
        _ => {}
    }
    for _ in 0..random.below(4) {
        words.extend(match random.below(4) {
            0 => PINGREQ.to_vec(),
            1 => publish(version, "t", &vec![1; usize::try_from(random.below(70_000)).unwrap()]),
            _ => publish(version, "t", b"m"),
        });
    }
    if random.below(3) == 0 {
        words.extend(DISCONNECT);
    }
    let split = usize::try_from(random.below(words.len() as u64 + 1)).unwrap();
    let _ = stream.write_all(&words[..split]).await;
    sleep(Duration::from_millis(random.below(20))).await;
    let _ = stream.write_all(&words[split..]).await;
    match random.below(5) {
        0 => drop(stream.set_zero_linger()),
        1 => drop(stream.shutdown().await),
        2 => sleep(Duration::from_millis(random.below(50))).await,
        _ => drop(timeout(Duration::from_millis(500), stream.read_to_end(&mut Vec::new())).await),
    }
}

/// A server that answers, or does not, and closes at some time.
async fn serve(mut peer: Peer, seed: u64) {
    let mut random = Random(seed | 1);
    let mut bytes = vec![0; 1000];
    let Ok(count) = peer.0.read(&mut bytes).await else { return };
    let version = match bytes[..count].get(8) {
        Some(5) => Version::Mqtt5,
        Some(4) => Version::Mqtt311,
        _ => Version::Mqtt31,
    };
    match random.below(8) {
        0 => return,
        1 => return peer.reset(),
        2 => drop(peer.0.write_all(b"garbage").await),
        3 => drop(peer.0.write_all(&connack(version, 5)).await),
        _ => drop(peer.0.write_all(&connack(version, 0)).await),
    }
    for _ in 0..random.below(4) {
        let _ = peer
            .0
            .write_all(&publish(version, "t", &vec![2; usize::try_from(random.below(30_000)).unwrap()]))
            .await;
    }
    if random.below(3) == 0 {
        sleep(Duration::from_millis(random.below(30))).await;
    } else {
        // Some clients stay, and so do we.
        let end = async { while matches!(peer.0.read(&mut bytes).await, Ok(1..)) {} };
        let _ = timeout(Duration::from_millis(300), end).await;
    }
    if random.below(3) == 0 {
        peer.reset();
    }
}
