//! A relay in a process of its own on core 0, and what the kernel says of it.
#![expect(clippy::disallowed_methods, reason = "nothing else is to be done while it starts")]

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Whose relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    Haproxy,
    /// A server of Python's asyncio, which relays nothing: it shakes hands, and reads.
    Asyncio,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Haproxy => "HAProxy",
            Self::Asyncio => "asyncio",
        }
    }
}

/// A running relay. It ends when this is dropped.
pub(crate) struct Relay {
    process: Child,
    pub(crate) address: SocketAddr,
    config: Option<PathBuf>,
}

impl Relay {
    /// Starts it in front of the broker. With a certificate, its clients speak TLS.
    pub(crate) fn start(kind: Kind, broker: SocketAddr, certificate: Option<&Path>) -> io::Result<Self> {
        match kind {
            Kind::Ours => {
                let mut command = pinned();
                command.arg(std::env::current_exe()?).args(["front", &broker.to_string()]).args(certificate);
                Self::told(command)
            }
            Kind::Haproxy => Self::haproxy(broker, certificate),
            Kind::Asyncio => {
                let mut command = pinned();
                command.arg(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
                command.args(["-c", ASYNCIO]).args(certificate);
                Self::told(command)
            }
        }
    }

    /// A relay that prints its address.
    fn told(mut command: Command) -> io::Result<Self> {
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(io::Error::other)?;
        Ok(Self { process, address, config: None })
    }

    fn haproxy(broker: SocketAddr, certificate: Option<&Path>) -> io::Result<Self> {
        let address = free_address()?;
        let config = std::env::temp_dir().join(format!("gateway-bench-{}.cfg", address.port()));
        // As ours, it connects to the broker when the client has said something.
        let tls = certificate.map_or(String::new(), |certificate| {
            format!(
                " ssl crt {}\n  tcp-request inspect-delay 10s\n  tcp-request content accept if {{ req.len gt 0 }}",
                certificate.display()
            )
        });
        fs::write(
            &config,
            format!(
                "global\n  nbthread 1\n  maxconn 5000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  \
                 timeout server 10m\nlisten front\n  bind {address}{tls}\n  server broker {broker} check inter 2s\n"
            ),
        )?;
        let process =
            pinned().args(["haproxy", "-q", "-db", "-f"]).arg(&config).stdout(Stdio::null()).spawn()?;
        let mut relay = Self { process, address, config: Some(config) };
        await_listener(address, &mut relay.process)?;
        Ok(relay)
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

/// A port that was free a moment ago.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Waits until the process listens.
pub(crate) fn await_listener(address: SocketAddr, process: &mut Child) -> io::Result<()> {
    loop {
        if let Some(status) = process.try_wait()? {
            return Err(io::Error::other(format!("it has ended: {status}")));
        }
        match TcpStream::connect(address) {
            // A port that nobody listens on may connect to itself.
            Ok(stream) if stream.local_addr()? != address => return Ok(()),
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A server of TLS on asyncio: the way that Python's own ssl goes.
const ASYNCIO: &str = "
import asyncio, ssl, sys

async def serve():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, '127.0.0.1', 0, ssl=context, backlog=1024)
    print('%s:%d' % server.sockets[0].getsockname(), flush=True)
    await server.serve_forever()

asyncio.run(serve())
";

fn pinned() -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]);
    command
}
