//! Prints what brokers carry: ours in this process's child, Mosquitto, and amqtt, in turns in the same rounds, on all cores
//! that this process may use, with the clients.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::clients::Clients;
use crate::fans::Fan;
use crate::mosquitto::Mosquitto;
use crate::quartiles;

/// Sessions that say nothing, for the memory of one.
const IDLE: u32 = 2000;
/// Packets for the time of a delivery; the first tenth warms up.
const DELIVERIES: usize = 2000;
/// What arrives in one measurement; at amqtt a tenth of it.
const MESSAGES: usize = 50_000;
const MANY: usize = 32;

const FANS: [(&str, Fan); 4] = [
    ("QoS 0, 32 publishers, 1 subscriber", Fan { publishers: MANY, subscribers: 1, qos: 0 }),
    ("QoS 1, 32 publishers, 1 subscriber", Fan { publishers: MANY, subscribers: 1, qos: 1 }),
    ("QoS 0, 1 publisher, 32 subscribers", Fan { publishers: 1, subscribers: MANY, qos: 0 }),
    ("QoS 1, 1 publisher, 32 subscribers", Fan { publishers: 1, subscribers: MANY, qos: 1 }),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Embedded,
    Mosquitto,
    /// Without our gateway, which is the faster way.
    Amqtt,
    /// Behind our gateway.
    AmqttBehind,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Mosquitto => "Mosquitto",
            Self::Amqtt => "amqtt",
            Self::AmqttBehind => "amqtt behind the gateway",
        }
    }
}

/// One that runs. It ends when this is dropped.
struct Broker {
    kind: Kind,
    address: SocketAddr,
    process: u32,
    #[expect(dead_code, reason = "held for its drop")]
    running: Running,
}

enum Running {
    Mosquitto(#[expect(dead_code, reason = "held for its drop")] Mosquitto),
    Python(Child),
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Python(process) = self {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Broker {
    fn start(kind: Kind) -> io::Result<Self> {
        let name = match kind {
            Kind::Mosquitto => {
                let mosquitto = Mosquitto::start()?;
                let (address, process) = (mosquitto.address, mosquitto.id());
                return Ok(Self { kind, address, process, running: Running::Mosquitto(mosquitto) });
            }
            Kind::Embedded => "embedded",
            Kind::Amqtt => "plain",
            Kind::AmqttBehind => "behind",
        };
        let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mqtt_server.py");
        let mut process = Command::new(python)
            .arg(script)
            .arg(name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = process.stdout.take();
        let running = Running::Python(process);
        let Running::Python(process) = &running else { unreachable!("it was just made") };
        let id = process.id();
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self { kind, address, process: id, running })
    }

    /// The CPU time of it in seconds.
    fn cpu(&self) -> io::Result<f64> {
        cpu(&format!("/proc/{}/task", self.process))
    }

    fn resident_kib(&self) -> io::Result<f64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process))?;
        let line = rollup.lines().find(|line| line.starts_with("Rss:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.ok_or_else(|| io::Error::other("no Rss"))
    }
}

fn cpu(tasks: &str) -> io::Result<f64> {
    let mut sum = 0.0;
    for task in fs::read_dir(tasks)? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        let spent = stat.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
        sum += spent.unwrap_or_default() / 1e9;
    }
    Ok(sum)
}

/// What one measurement has found.
#[derive(Clone, Copy, Default)]
struct Found {
    value: f64,
    /// CPU of the broker in microseconds, for each message that arrived.
    broker: f64,
    /// The same of the clients.
    clients: f64,
}

pub(crate) fn measure_all(rounds: usize, part: &str) -> io::Result<()> {
    let clients = Clients::new()?;
    let kinds = [Kind::Embedded, Kind::Mosquitto, Kind::Amqtt];
    println!("Median of {rounds} rounds. Ratio: ours / theirs in the same round (quartiles).\n");
    println!(
        "| messages that arrive in a second | embedded | Mosquitto | amqtt | to Mosquitto | to amqtt | CPU of a message, us: \
         embedded | Mosquitto | clients |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for (what, fan) in FANS.iter().filter(|(what, _)| what.contains(part)) {
        let found = in_turns(rounds, &kinds, |broker| carry(&clients, broker, *fan))?;
        let middle = |of: &[Found], part: fn(&Found) -> f64| quartiles(of.iter().map(part))[1];
        println!(
            "| {what} | {:.0} | {:.0} | {:.0} | {} | {} | {:.1} | {:.1} | {:.1} |",
            middle(&found[0], |found| found.value),
            middle(&found[1], |found| found.value),
            middle(&found[2], |found| found.value),
            ratio(&found[0], &found[1]),
            ratio(&found[0], &found[2]),
            middle(&found[0], |found| found.broker),
            middle(&found[1], |found| found.broker),
            middle(&found[0], |found| found.clients),
        );
    }
    if "latency".contains(part) {
        println!("\n| publish to deliver, us | embedded | Mosquitto | amqtt |\n|---|---:|---:|---:|");
        for percent in [50, 99] {
            let found = in_turns(rounds, &kinds, |broker| {
                let mut taken = clients.deliver(broker.address, DELIVERIES)?.split_off(DELIVERIES / 10);
                taken.sort_by(f64::total_cmp);
                Ok(Found { value: taken[(taken.len() - 1) * percent / 100], ..Found::default() })
            })?;
            let middle = |of: usize| quartiles(found[of].iter().map(|found| found.value))[1];
            println!("| p{percent} | {:.0} | {:.0} | {:.0} |", middle(0), middle(1), middle(2));
        }
    }
    if "memory".contains(part) {
        let kinds = [Kind::Embedded, Kind::Mosquitto, Kind::AmqttBehind];
        let found = in_turns(rounds.min(3), &kinds, |broker| idle(&clients, broker))?;
        let middle = |of: usize| quartiles(found[of].iter().map(|found| found.value))[1];
        println!(
            "\n| memory of an idle session, KiB | embedded | Mosquitto | amqtt behind the gateway | to Mosquitto | to amqtt \
             |\n|---|---:|---:|---:|---:|---:|\n| {IDLE} sessions | {:.1} | {:.1} | {:.1} | {} | {} |",
            middle(0),
            middle(1),
            middle(2),
            ratio(&found[0], &found[1]),
            ratio(&found[0], &found[2]),
        );
    }
    Ok(())
}

/// What each kind needs in each round.
fn in_turns(
    rounds: usize,
    kinds: &[Kind],
    mut measure: impl FnMut(&Broker) -> io::Result<Found>,
) -> io::Result<Vec<Vec<Found>>> {
    let mut found = vec![Vec::new(); kinds.len()];
    for round in 0..rounds {
        for turn in 0..kinds.len() {
            let which = (round + turn) % kinds.len();
            // A fresh process each time: what one measurement leaves behind is not the next one's.
            let broker = Broker::start(kinds[which])?;
            found[which].push(measure(&broker)?);
        }
    }
    Ok(found)
}

fn carry(clients: &Clients, broker: &Broker, fan: Fan) -> io::Result<Found> {
    let arriving = if broker.kind == Kind::Amqtt { MESSAGES / 10 } else { MESSAGES };
    let messages = arriving / fan.subscribers;
    clients.fan(broker.address, fan, messages / 10)?;
    let before = (broker.cpu()?, cpu("/proc/self/task")?);
    let value = clients
        .fan(broker.address, fan, messages)
        .map_err(|error| io::Error::other(format!("{}: {error}", broker.kind.name())))?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand")]
    let each = |seconds: f64| seconds * 1e6 / arriving as f64;
    Ok(Found {
        value,
        broker: each(broker.cpu()? - before.0),
        clients: each(cpu("/proc/self/task")? - before.1),
    })
}

fn idle(clients: &Clients, broker: &Broker) -> io::Result<Found> {
    let _first = clients.connect_each(broker.address, 100, "first")?;
    let before = broker.resident_kib()?;
    let _sessions = clients.connect_each(broker.address, IDLE, "idle")?;
    Ok(Found { value: (broker.resident_kib()? - before) / f64::from(IDLE), ..Found::default() })
}

fn ratio(ours: &[Found], theirs: &[Found]) -> String {
    let [low, middle, high] =
        quartiles(ours.iter().zip(theirs).map(|(ours, theirs)| ours.value / theirs.value));
    format!("{middle:.2} ({low:.2}-{high:.2})")
}
