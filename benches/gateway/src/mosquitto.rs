//! A real broker, for what a packet takes on its way.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::relay::{await_listener, free_address};

/// A running Mosquitto. It ends when this is dropped.
pub(crate) struct Mosquitto {
    process: Child,
    config: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Mosquitto {
    /// Starts it on the core of the clients.
    pub(crate) fn start() -> io::Result<Self> {
        let address = free_address()?;
        let config = std::env::temp_dir().join(format!("gateway-bench-{}.conf", address.port()));
        // Without a limit of the queue: with its own, 1000, Mosquitto 2.0.11 dropped messages of QoS 1 for a subscriber that
        // was 256 behind, and a measurement that waits for all of them never ended.
        fs::write(
            &config,
            format!(
                "listener {} {}\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n",
                address.port(),
                address.ip()
            ),
        )?;
        let process = Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut mosquitto = Self { process, config, address };
        await_listener(address, &mut mosquitto.process)?;
        Ok(mosquitto)
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.config);
    }
}
