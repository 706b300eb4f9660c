//! A connection to one address of a server.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::target::Address;
use crate::options::UpstreamOptions;
use crate::wire::Socket;

/// Connects within `connect_timeout`, and tunes the socket.
pub(crate) async fn connect(
    address: &Address,
    options: &UpstreamOptions,
    keepalive: Option<Duration>,
) -> io::Result<Socket> {
    let limit = options.connect_timeout;
    let connected = async {
        match address {
            Address::Ip(address) => {
                let private = options.port.as_ref().filter(|port| port.address() == *address);
                let connected = match private {
                    Some(port) => port.connect().await,
                    None => TcpStream::connect(address).await,
                };
                connected.map(Socket::Tcp)
            }
            Address::Unix(path) => connect_unix(path).await.map(Socket::Unix),
        }
    };
    let socket = timeout(limit, connected).await.map_err(|_| no_answer(limit))??;
    socket.tune(keepalive)?;
    Ok(socket)
}

/// A full backlog says EAGAIN at once, where TCP would wait.
async fn connect_unix(path: &str) -> io::Result<UnixStream> {
    // The kernel marks an abstract name with a NUL.
    let path = path.strip_prefix('@').map_or_else(|| path.into(), |name| format!("\0{name}"));
    loop {
        match UnixStream::connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BACKLOG_PAUSE).await,
            connected => return connected,
        }
    }
}

pub(crate) fn no_answer(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {} s", limit.as_secs_f64()))
}

const BACKLOG_PAUSE: Duration = Duration::from_millis(5);
