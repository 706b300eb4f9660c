//! Prints what a relay costs: ours, and HAProxy in TCP mode. Both carry the same sessions of MQTT between the same clients and
//! the same broker, in turns in the same rounds; a ratio compares two results of one round.
//!
//! The relay has core 0 for itself. Clients and broker are this process, which belongs on core 1 (`benches/run gateway`).

mod broker;
mod clients;
mod front;
mod packets;
mod relay;

use std::io;

use clients::Clients;
use relay::Relay;

/// Odd, so that there is a middle one.
const ROUNDS: usize = 15;

/// Sessions that say nothing, for the memory of one.
const IDLE: u32 = 2000;

/// What is measured: its name, its unit, and how it is done. A measurement gives the cost of one unit.
type Row = (&'static str, &'static str, fn(&Clients, &Relay) -> io::Result<f64>);

const ROWS: [Row; 6] = [
    ("64-byte packets one by one, 1 session", "us of CPU a packet", |clients, relay| {
        one_by_one(clients, relay, 1)
    }),
    ("64-byte packets one by one, 64 sessions", "us of CPU a packet", |clients, relay| {
        one_by_one(clients, relay, 64)
    }),
    ("16 KiB packets", "us of CPU a MB", large),
    ("64-byte packets in large writes", "ns of CPU a packet", bulk),
    ("a session opened, used once and closed", "us of CPU", churn),
    ("an idle session", "KiB of memory", idle),
];

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => measure_all(ROUNDS, ""),
        ["front", server] => front::serve(server),
        [rounds] => measure_all(rounds.parse().map_err(io::Error::other)?, ""),
        [rounds, row] => measure_all(rounds.parse().map_err(io::Error::other)?, row),
        _ => Err(io::Error::other(
            "gateway-bench [ROUNDS [PART OF A ROW'S NAME]] | gateway-bench front SERVER",
        )),
    }
}

fn measure_all(rounds: usize, part: &str) -> io::Result<()> {
    let broker = broker::start()?;
    let clients = Clients::new()?;
    println!("Median of {rounds} rounds. Ratio: ours / HAProxy in the same round (quartiles).\n");
    println!("| what | unit | ours | HAProxy | ratio |\n|---|---|---:|---:|---:|");
    for (name, unit, measure) in ROWS.into_iter().filter(|row| row.0.contains(part)) {
        let mut costs = [Vec::new(), Vec::new()];
        // The first round warms up.
        for round in 0..=rounds {
            for turn in 0..2 {
                let which = (round + turn) % 2;
                // A fresh process each time: memory that one measurement leaves behind is not the next one's.
                let relay = if which == 0 { Relay::ours(broker)? } else { Relay::haproxy(broker)? };
                let cost = measure(&clients, &relay)?;
                if round > 0 {
                    costs[which].push(cost);
                }
            }
        }
        let ratios = quartiles(costs[0].iter().zip(&costs[1]).map(|(ours, theirs)| ours / theirs).collect());
        let [ours, theirs] = costs.map(|costs| quartiles(costs)[1]);
        println!(
            "| {name} | {unit} | {ours:.1} | {theirs:.1} | {:.2} ({:.2}-{:.2}) |",
            ratios[1], ratios[0], ratios[2]
        );
    }
    Ok(())
}

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

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
