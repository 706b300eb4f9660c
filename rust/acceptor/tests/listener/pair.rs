//! A listener and the peers that talk to it. Every wait is for an event. Only a failure reaches the limit of a wait.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use proxyproto_acceptor::{
    AddressSet, BindOptions, Connection, HeaderTimeout, Listener, LocalAddr, Options, Outcome, Refusal,
    Socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long an event may take before it counts as never coming.
const NEVER: Duration = Duration::from_secs(20);

pub(crate) const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";
pub(crate) const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
pub(crate) const MQTT_CONNECT: &[u8] = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";

/// A version 1 header that names this client.
pub(crate) fn v1_of(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 12345 1883\r\n").into_bytes()
}

pub(crate) fn networks(texts: &[&str]) -> AddressSet {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Trusts loopback. The header timeout is long, for busy machines. A test that waits for the timeout sets its own.
pub(crate) fn options() -> Options {
    let header_timeout = HeaderTimeout::from_secs(60.0).unwrap();
    Options::default().trusted(networks(&["127.0.0.0/8"])).header_timeout(header_timeout)
}

pub(crate) struct Served {
    pub(crate) listener: Listener,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn new(options: Options) -> Self {
        Self::with_backlog(options, 128)
    }

    pub(crate) fn with_backlog(options: Options, backlog: u32) -> Self {
        let bind = BindOptions::default().backlog(backlog);
        Self::of(Socket::bind("127.0.0.1:0".parse().unwrap(), bind).unwrap(), options)
    }

    pub(crate) fn of(socket: Socket, options: Options) -> Self {
        let LocalAddr::Ip(address) = *socket.local_addr() else { panic!("an internet address") };
        Self { listener: Listener::start(socket, options).unwrap(), address }
    }

    /// A peer that has sent `bytes`.
    pub(crate) fn peer(&self, bytes: &[u8]) -> TcpStream {
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.set_nodelay(true).unwrap();
        peer.write_all(bytes).unwrap();
        peer
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> Connection {
        self.until(|listener| listener.take(1).unwrap().pop())
    }

    /// The next refusal.
    pub(crate) fn refusal(&self) -> Refusal {
        self.until(|listener| listener.take_refusals().unwrap().records.into_iter().next())
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        let stats = self.listener.stats().unwrap();
        stats.outcomes.iter().find(|(other, _)| *other == outcome).unwrap().1
    }

    pub(crate) fn until<T>(&self, mut event: impl FnMut(&Listener) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = event(&self.listener) {
                return value;
            }
            assert!(start.elapsed() < NEVER, "waited in vain; {:?}", self.listener.stats());
            if let Ok(wake) = self.listener.wake_fd() {
                let mut fds = [PollFd::new(&wake, PollFlags::IN)];
                // Some events are counted and wake nobody, so look again after a moment.
                poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 })).unwrap();
            }
        }
    }

    pub(crate) fn until_count(&self, outcome: Outcome, count: u64) {
        self.until(|_| (self.count(outcome) == count).then_some(()));
    }

    pub(crate) fn until_pending(&self, count: usize) {
        self.until(|listener| (listener.stats().unwrap().pending == count).then_some(()));
    }
}

/// Reads until the peer closes.
pub(crate) fn read_all(connection: Connection) -> Vec<u8> {
    let mut stream = TcpStream::from(connection.fd);
    stream.set_nonblocking(false).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Waits until the listener has closed this connection.
pub(crate) fn until_closed(mut peer: &TcpStream) {
    peer.set_read_timeout(Some(NEVER)).unwrap();
    // A reset is a close too. It comes if the listener did not read all bytes.
    assert!(matches!(peer.read(&mut [0; 16]), Ok(0) | Err(_)));
}

pub(crate) fn finish(peer: &TcpStream) {
    peer.shutdown(Shutdown::Write).unwrap();
}
