//! Prints the CPU time that a tokio server takes for a connection: with `ProxyListener`, and with the twenty lines that
//! accept, read until the header is whole, and decode it. These are measured without and with a deadline for the header;
//! `ProxyListener` always has one. All servers are measured in turns in the same rounds.
//!
//! The clients are `load connect`, whose binary lies beside this one.

mod servers;

use std::io::{self, BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Odd, so that there is a middle one.
const ROUNDS: usize = 31;

/// Connections in a round: long against the rest of what a server does.
const CONNECTIONS: u32 = 2000;

const SERVERS: [&str; 3] = ["ours", "naive", "naive, with a deadline"];

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => measure_all(),
        ["serve", server, workers] => servers::serve(server, workers.parse().map_err(io::Error::other)?),
        _ => Err(io::Error::other("tokio-servers [serve ours|naive|'naive, with a deadline' WORKERS]")),
    }
}

fn measure_all() -> io::Result<()> {
    println!(
        "us of CPU of the server a connection: median of {ROUNDS} rounds of {CONNECTIONS}. Ratio: ours / naive in the same \
         round (quartiles).\n"
    );
    println!("| runtime | header | clients at once | {} | ratio |", SERVERS.join(" | "));
    println!("|---|---|---:|{}---|", "---:|".repeat(SERVERS.len()));
    for workers in [0, 2] {
        for kind in ["v1", "v2"] {
            for concurrency in [1, 64] {
                measure(workers, kind, concurrency)?;
            }
        }
    }
    Ok(())
}

fn measure(workers: usize, kind: &str, concurrency: u32) -> io::Result<()> {
    let mut servers =
        SERVERS.iter().map(|name| Server::start(name, workers)).collect::<io::Result<Vec<_>>>()?;
    let mut times = vec![Vec::with_capacity(ROUNDS); servers.len()];
    // The first round warms up.
    for round in 0..=ROUNDS {
        for turn in 0..servers.len() {
            let index = (round + turn) % servers.len();
            let before = servers[index].cpu_time()?;
            load(servers[index].address, kind, concurrency, if workers == 0 { "1" } else { "0,1" })?;
            let took = servers[index].cpu_time()?.saturating_sub(before);
            if round > 0 {
                times[index].push(took.as_secs_f64() * 1e6 / f64::from(CONNECTIONS));
            }
        }
    }
    let ratios = quartiles((0..ROUNDS).map(|round| times[0][round] / times[1][round]).collect());
    let runtime = if workers == 0 { "current thread".to_string() } else { format!("{workers} workers") };
    print!("| {runtime} | {kind} | {concurrency} |");
    for times in times {
        print!(" {:.1} |", quartiles(times)[1]);
    }
    println!(" {:.2} ({:.2}-{:.2}) |", ratios[1], ratios[0], ratios[2]);
    Ok(())
}

/// A server in a process of its own, which tells its CPU time for each line that it is sent.
struct Server {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Server {
    fn start(name: &str, workers: usize) -> io::Result<Self> {
        // One thread has a core of its own; more have both, and share them with the clients.
        let mut process = pinned(if workers == 0 { "0" } else { "0,1" })
            .arg(std::env::current_exe()?)
            .args(["serve", name, &workers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut output = BufReader::new(output).lines();
        let address = next(&mut output)?.parse().map_err(io::Error::other)?;
        Ok(Self { process, input, output, address })
    }

    fn cpu_time(&mut self) -> io::Result<Duration> {
        self.input.write_all(b"\n")?;
        next(&mut self.output)?.parse().map(Duration::from_nanos).map_err(io::Error::other)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn next(output: &mut Lines<BufReader<ChildStdout>>) -> io::Result<String> {
    output.next().unwrap_or_else(|| Err(io::Error::other("the server has ended")))
}

/// What a server answers on its output for each line of its input.
fn tell_cpu_time() {
    for line in io::stdin().lines() {
        if line.is_err() {
            return;
        }
        let time = clock_gettime(ClockId::ProcessCPUTime);
        println!("{}", time.tv_sec * 1_000_000_000 + time.tv_nsec);
    }
}

fn load(address: SocketAddr, kind: &str, concurrency: u32, cores: &str) -> io::Result<()> {
    let load = std::env::current_exe()?.with_file_name("load");
    let arguments = [
        "connect".into(),
        address.to_string(),
        kind.into(),
        CONNECTIONS.to_string(),
        concurrency.to_string(),
    ];
    let output = pinned(cores).arg(load).args(arguments).output()?;
    let report = String::from_utf8_lossy(&output.stdout);
    if report.contains("\"errors\": 0,") {
        Ok(())
    } else {
        Err(io::Error::other(format!("the clients say: {report}{}", String::from_utf8_lossy(&output.stderr))))
    }
}

fn pinned(cores: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", cores]);
    command
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}
