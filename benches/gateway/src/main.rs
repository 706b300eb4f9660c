//! Prints what a relay costs: ours, HAProxy, and for TLS asyncio. All carry the same sessions of MQTT between the same clients
//! and the same broker, in turns in the same rounds; a ratio compares two results of one round.
//!
//! The relay has core 0 for itself. Clients and brokers are on core 1, where this process belongs (`benches/run gateway`).

mod broker;
mod brokers;
mod clients;
mod fans;
mod front;
mod mosquitto;
mod packets;
mod relay;
mod tls;

use std::io;
use std::net::SocketAddr;

use clients::Clients;
use mosquitto::Mosquitto;
use relay::{Kind, Relay};
use tls::{Certificates, Key};
use tokio_rustls::TlsConnector;

/// Odd, so that there is a middle one.
const ROUNDS: usize = 15;

/// Sessions that say nothing, for the memory of one.
const IDLE: u32 = 2000;

/// What is measured.
struct Row {
    what: &'static str,
    unit: &'static str,
    rivals: &'static [Kind],
    /// What clients speak with the relay.
    tls: Option<Key>,
    /// Gives the cost of one unit.
    measure: fn(&Clients, &Relay, Option<&TlsConnector>) -> io::Result<f64>,
}

const HAPROXY: &[Kind] = &[Kind::Haproxy];

const ROWS: [Row; 9] = [
    Row {
        what: "64-byte packets one by one, 1 session",
        unit: "us of CPU a packet",
        rivals: HAPROXY,
        tls: None,
        measure: |clients, relay, _| one_by_one(clients, relay, 1),
    },
    Row {
        what: "64-byte packets one by one, 64 sessions",
        unit: "us of CPU a packet",
        rivals: HAPROXY,
        tls: None,
        measure: |clients, relay, _| one_by_one(clients, relay, 64),
    },
    Row {
        what: "16 KiB packets",
        unit: "us of CPU a MB",
        rivals: HAPROXY,
        tls: None,
        measure: |clients, relay, _| large(clients, relay),
    },
    Row {
        what: "64-byte packets in large writes",
        unit: "ns of CPU a packet",
        rivals: HAPROXY,
        tls: None,
        measure: |clients, relay, _| bulk(clients, relay),
    },
    Row {
        what: "a session opened, used once and closed",
        unit: "us of CPU",
        rivals: HAPROXY,
        tls: None,
        measure: |clients, relay, _| churn(clients, relay),
    },
    Row {
        what: "an idle session",
        unit: "KiB of memory",
        rivals: HAPROXY,
        tls: None,
        measure: |clients, relay, _| idle(clients, relay),
    },
    Row {
        what: "an idle session in TLS",
        unit: "KiB of memory",
        rivals: HAPROXY,
        tls: Some(Key::P256),
        measure: idle_in_tls,
    },
    Row {
        what: "a TLS handshake, ECDSA P-256",
        unit: "us of CPU",
        rivals: &[Kind::Haproxy, Kind::Asyncio],
        tls: Some(Key::P256),
        measure: handshake,
    },
    Row {
        what: "a TLS handshake, RSA 2048",
        unit: "us of CPU",
        rivals: &[Kind::Haproxy, Kind::Asyncio],
        tls: Some(Key::Rsa2048),
        measure: handshake,
    },
];

const DELIVERY: &str = "publish to deliver through Mosquitto";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => measure_all(ROUNDS, ""),
        ["front", server] => front::serve(server, None),
        ["front", server, certificate] => front::serve(server, Some(certificate)),
        ["brokers"] => brokers::measure_all(ROUNDS / 3, ""),
        ["brokers", rounds] => brokers::measure_all(rounds.parse().map_err(io::Error::other)?, ""),
        ["brokers", rounds, row] => brokers::measure_all(rounds.parse().map_err(io::Error::other)?, row),
        [rounds] => measure_all(rounds.parse().map_err(io::Error::other)?, ""),
        [rounds, row] => measure_all(rounds.parse().map_err(io::Error::other)?, row),
        _ => Err(io::Error::other(
            "gateway-bench [ROUNDS [PART OF A ROW'S NAME]] | gateway-bench front SERVER [CERTIFICATE] | gateway-bench \
             brokers [ROUNDS [PART OF A ROW'S NAME]]",
        )),
    }
}

fn measure_all(rounds: usize, part: &str) -> io::Result<()> {
    let broker = broker::start()?;
    let clients = Clients::new()?;
    let certificates = Certificates::new()?;
    println!("Median of {rounds} rounds. Ratio: ours / theirs in the same round (quartiles).\n");
    println!("| what | unit | ours | rival | theirs | ratio |\n|---|---|---:|---|---:|---:|");
    for row in ROWS.iter().filter(|row| row.what.contains(part)) {
        measure_row(row, rounds, broker, &clients, &certificates)?;
    }
    if DELIVERY.contains(part) {
        deliver(rounds, &clients)?;
    }
    Ok(())
}

fn measure_row(
    row: &Row,
    rounds: usize,
    broker: SocketAddr,
    clients: &Clients,
    certificates: &Certificates,
) -> io::Result<()> {
    let certificate = row.tls.map(|key| certificates.path(key));
    let tls = certificate.as_deref().map(tls::connector).transpose()?;
    let kinds: Vec<Kind> = [Kind::Ours].iter().chain(row.rivals).copied().collect();
    let mut costs = vec![Vec::new(); kinds.len()];
    // The first round warms up.
    for round in 0..=rounds {
        for turn in 0..kinds.len() {
            let which = (round + turn) % kinds.len();
            // A fresh process each time: memory that one measurement leaves behind is not the next one's.
            let relay = Relay::start(kinds[which], broker, certificate.as_deref())?;
            let cost = (row.measure)(clients, &relay, tls.as_ref())?;
            if round > 0 {
                costs[which].push(cost);
            }
        }
    }
    for (rival, theirs) in kinds.iter().zip(&costs).skip(1) {
        let [low, ratio, high] = quartiles(costs[0].iter().zip(theirs).map(|(ours, theirs)| ours / theirs));
        let [ours, theirs] = [&costs[0], theirs].map(|costs| quartiles(costs.iter().copied())[1]);
        println!(
            "| {} | {} | {ours:.1} | {} | {theirs:.1} | {ratio:.2} ({low:.2}-{high:.2}) |",
            row.what,
            row.unit,
            rival.name()
        );
    }
    Ok(())
}

/// What a relay adds to the time from a publisher to a subscriber.
fn deliver(rounds: usize, clients: &Clients) -> io::Result<()> {
    let mosquitto = Mosquitto::start()?;
    let kinds = [None, Some(Kind::Ours), Some(Kind::Haproxy)];
    // The times of each, in each round: p50 and p99.
    let mut times = vec![Vec::new(); kinds.len()];
    for round in 0..=rounds {
        for turn in 0..kinds.len() {
            let which = (round + turn) % kinds.len();
            let relay = kinds[which].map(|kind| Relay::start(kind, mosquitto.address, None)).transpose()?;
            let address = relay.as_ref().map_or(mosquitto.address, |relay| relay.address);
            let mut taken = clients.deliver(address, DELIVERIES)?.split_off(DELIVERIES / 10);
            taken.sort_by(f64::total_cmp);
            if round > 0 {
                times[which].push([50, 99].map(|percent| taken[(taken.len() - 1) * percent / 100]));
            }
        }
    }
    println!(
        "\n| {DELIVERY}, us | direct | ours | HAProxy | ours adds | HAProxy adds |\n|---|---:|---:|---:|---:|---:|"
    );
    for (at, name) in ["p50", "p99"].into_iter().enumerate() {
        let middle = |which: usize| quartiles(times[which].iter().map(|round| round[at]))[1];
        let added = |which: usize| {
            let [low, middle, high] = quartiles(
                times[which].iter().zip(&times[0]).map(|(relayed, direct)| relayed[at] - direct[at]),
            );
            format!("{middle:.0} ({low:.0}-{high:.0})")
        };
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {} | {} |",
            middle(0),
            middle(1),
            middle(2),
            added(1),
            added(2)
        );
    }
    Ok(())
}

/// Packets in one measurement of a delivery; the first tenth warms up.
const DELIVERIES: usize = 3000;

fn one_by_one(clients: &Clients, relay: &Relay, count: u32) -> io::Result<f64> {
    let rounds = 12_800 / count;
    let mut sessions = clients.connect(relay.address, count, "echo")?;
    clients.echo(&mut sessions, 100)?;
    let before = relay.cpu_nanoseconds()?;
    clients.echo(&mut sessions, rounds)?;
    // Each goes there and back.
    Ok((relay.cpu_nanoseconds()? - before) / 1e3 / f64::from(2 * rounds * count))
}

fn large(clients: &Clients, relay: &Relay) -> io::Result<f64> {
    let (size, count) = (16 * 1024, 8000);
    let nanoseconds = send(clients, relay, &packets::publish(16 * 1024), count)?;
    Ok(nanoseconds / 1e3 / f64::from(size * count) * 1e6)
}

fn bulk(clients: &Clients, relay: &Relay) -> io::Result<f64> {
    let (packet, count) = (packets::publish(64), 1000);
    let nanoseconds = send(clients, relay, &packet.repeat(1000), count)?;
    Ok(nanoseconds / f64::from(1000 * count))
}

/// The CPU of so many writes of these bytes.
fn send(clients: &Clients, relay: &Relay, bytes: &[u8], count: u32) -> io::Result<f64> {
    let mut sessions = clients.connect(relay.address, 1, "sink")?;
    clients.send(&mut sessions[0], bytes, count / 10)?;
    let before = relay.cpu_nanoseconds()?;
    clients.send(&mut sessions[0], bytes, count)?;
    Ok(relay.cpu_nanoseconds()? - before)
}

fn churn(clients: &Clients, relay: &Relay) -> io::Result<f64> {
    let count = 2000_u32;
    clients.come_and_go(relay.address, count / 10)?;
    let before = relay.cpu_nanoseconds()?;
    clients.come_and_go(relay.address, count)?;
    Ok((relay.cpu_nanoseconds()? - before) / 1e3 / f64::from(count))
}

fn idle(clients: &Clients, relay: &Relay) -> io::Result<f64> {
    // What a relay takes once for all.
    let _first = clients.connect(relay.address, 100, "sink")?;
    let before = relay.resident_kib()?;
    let _sessions = clients.connect(relay.address, IDLE, "sink")?;
    Ok((relay.resident_kib()? - before) / f64::from(IDLE))
}

fn idle_in_tls(clients: &Clients, relay: &Relay, tls: Option<&TlsConnector>) -> io::Result<f64> {
    let tls = tls.ok_or_else(|| io::Error::other("no TLS"))?;
    let _first = clients.connect_tls(relay.address, tls, 100)?;
    let before = relay.resident_kib()?;
    let _sessions = clients.connect_tls(relay.address, tls, IDLE / 4)?;
    Ok((relay.resident_kib()? - before) / f64::from(IDLE / 4))
}

fn handshake(clients: &Clients, relay: &Relay, tls: Option<&TlsConnector>) -> io::Result<f64> {
    let tls = tls.ok_or_else(|| io::Error::other("no TLS"))?;
    let count = 400_u32;
    clients.shake_hands(relay.address, tls, count / 4)?;
    let before = relay.cpu_nanoseconds()?;
    clients.shake_hands(relay.address, tls, count)?;
    Ok((relay.cpu_nanoseconds()? - before) / 1e3 / f64::from(count))
}

fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
