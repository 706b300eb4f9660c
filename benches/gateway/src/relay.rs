//! A relay in a process of its own on core 0, and what the kernel says of it.
#![expect(clippy::disallowed_methods, reason = "nothing else is to be done while it starts")]

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A running relay. It ends when this is dropped.
pub(crate) struct Relay {
    process: Child,
    pub(crate) address: SocketAddr,
    config: Option<PathBuf>,
}

impl Relay {
    pub(crate) fn ours(broker: SocketAddr) -> io::Result<Self> {
        let mut process = pinned()
            .arg(std::env::current_exe()?)
            .args(["front", &broker.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self { process, address, config: None })
    }

    pub(crate) fn haproxy(broker: SocketAddr) -> io::Result<Self> {
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = std::env::temp_dir().join(format!("gateway-bench-{}.cfg", address.port()));
        fs::write(
            &config,
            format!(
                "global\n  nbthread 1\n  maxconn 5000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  \
                 timeout server 10m\nlisten front\n  bind {address}\n  server broker {broker} check inter 2s\n"
            ),
        )?;
        let process =
            pinned().args(["haproxy", "-q", "-db", "-f"]).arg(&config).stdout(Stdio::null()).spawn()?;
        let mut relay = Self { process, address, config: Some(config) };
        loop {
            if let Some(status) = relay.process.try_wait()? {
                return Err(io::Error::other(format!("haproxy: {status}")));
            }
            match TcpStream::connect(address) {
                // A port that nobody listens on may connect to itself.
                Ok(stream) if stream.local_addr()? != address => return Ok(relay),
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The CPU time of all its threads.
    pub(crate) fn cpu_nanoseconds(&self) -> io::Result<f64> {
        let mut sum = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            let spent = stat.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
            sum += spent.unwrap_or_default();
        }
        Ok(sum)
    }

    /// The memory that it does not share.
    pub(crate) fn resident_kib(&self) -> io::Result<f64> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id()))?;
        let line = rollup.lines().find(|line| line.starts_with("Rss:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.ok_or_else(|| io::Error::other("no Rss"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(config) = &self.config {
            let _ = fs::remove_file(config);
        }
    }
}

fn pinned() -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]);
    command
}
