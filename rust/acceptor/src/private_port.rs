//! A port of 127.0.0.1 that only this process reaches.
//!
//! It is for a server whose accept loop takes every connection and belongs to somebody else, as a library's does. Two sockets
//! listen on the port (`SO_REUSEPORT`): the server's, and a door of ours. A filter in the kernel chooses between them when a
//! connection begins. It sends those whose source address has been announced to the server, and all others to the door, which
//! closes them. So the server never hears of a stranger, and a stranger holds none of its descriptors.
//!
//! Each connection has a source address of its own, 127.x.y.z, and the port itself as its source port. While one socket has an
//! address, nobody else can bind it. And the connections take no port from the range that the machine's other programs use.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::sys::{self, Filter};

/// A port of 127.0.0.1 that only this process reaches.
#[derive(Debug)]
pub struct PrivatePort {
    address: SocketAddrV4,
    /// It is gone once nobody turns strangers away any more.
    door: Weak<TcpListener>,
    /// Those who connect at this moment.
    announced: Mutex<Vec<Ipv4Addr>>,
    permits: Semaphore,
    random: RandomState,
    next: AtomicU64,
}

/// The door of a [`PrivatePort`]. The port is open for as long as this exists.
#[derive(Debug)]
pub struct Door {
    listener: Arc<TcpListener>,
    /// Keeps other processes of this user from listening on the port too.
    bolt: Option<AsyncFd<Arc<OwnedFd>>>,
}

impl PrivatePort {
    /// Opens the door, on a port that the kernel chooses. It must be called within a runtime.
    ///
    /// The server binds the same address next, with `SO_REUSEPORT`, and listens. Then call [`Door::bolt`].
    ///
    /// # Errors
    ///
    /// What the system says. The kernel must be Linux 4.6 or later.
    pub fn open() -> io::Result<(Arc<Self>, Door)> {
        let fd = reusable_socket()?;
        bind(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        sys::attach_reuseport_filter(fd.as_fd(), &program(0, &[]))?;
        listen(&fd, DOOR_BACKLOG)?;
        let listener = Arc::new(TcpListener::from_std(fd.into())?);
        let SocketAddr::V4(address) = listener.local_addr()? else { return Err(Errno::AFNOSUPPORT.into()) };
        let port = Self {
            address,
            door: Arc::downgrade(&listener),
            announced: Mutex::default(),
            permits: Semaphore::new(MOST_ANNOUNCED),
            random: RandomState::new(),
            next: AtomicU64::new(0),
        };
        Ok((Arc::new(port), Door { listener, bolt: None }))
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address.into()
    }

    /// Connects to the server. It is cancel safe.
    ///
    /// # Errors
    ///
    /// What the system says; `ConnectionRefused` once the door is gone.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let closed = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let (socket, source) = self.bind_source()?;
        let _announced = self.announce(source)?;
        socket.connect(self.address()).await
    }

    /// A socket with a source address that nobody else has.
    fn bind_source(&self) -> io::Result<(TcpSocket, Ipv4Addr)> {
        let socket = TcpSocket::new_v4()?;
        let mut tries = 0;
        loop {
            let source = self.random_source();
            match socket.bind(SocketAddrV4::new(source, self.address.port()).into()) {
                Ok(()) => return Ok((socket, source)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// One of 16 million addresses of this machine, none of which is 127.0.0.1.
    fn random_source(&self) -> Ipv4Addr {
        let random = self.random.hash_one(self.next.fetch_add(1, Ordering::Relaxed)).to_ne_bytes();
        let [high, middle, low, ..] = random;
        Ipv4Addr::new(127, high.clamp(1, 254), middle, low.clamp(1, 254))
    }

    /// Tells the kernel whose connection goes to the server.
    fn announce(&self, source: Ipv4Addr) -> io::Result<Announced<'_>> {
        let mut announced = self.announced();
        announced.push(source);
        let told = self.tell_kernel(&announced);
        drop(announced);
        // Its drop takes the address back.
        let guard = Announced { port: self, source };
        told.map(|()| guard)
    }

    fn tell_kernel(&self, announced: &[Ipv4Addr]) -> io::Result<()> {
        let door = self.door.upgrade().ok_or(io::ErrorKind::ConnectionRefused)?;
        sys::attach_reuseport_filter(door.as_fd(), &program(self.address.port(), announced))
    }

    fn announced(&self) -> MutexGuard<'_, Vec<Ipv4Addr>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    /// Lets no other process of this user listen on the port. Call it when the server listens.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn bolt(&mut self) -> io::Result<()> {
        let SocketAddr::V4(address) = self.listener.local_addr()? else {
            return Err(Errno::AFNOSUPPORT.into());
        };
        // Nobody may bind what a socket without SO_REUSEPORT has bound. This one only loses it after it has.
        let fd = reusable_socket()?;
        bind(&fd, &address)?;
        sockopt::set_socket_reuseport(&fd, false)?;
        // The kernel looks at the sockets of the port only after one without it was bound there.
        bind(&stream_socket()?, &SocketAddrV4::new(Ipv4Addr::new(127, 254, 254, 254), address.port()))?;
        // The runtime knows it, so a forked child closes it with the runtime's other descriptors.
        self.bolt = Some(sys::register_readable(Arc::new(fd))?);
        Ok(())
    }

    /// Closes the connections of strangers, and calls `told` for each. It never returns.
    pub async fn turn_away(self, told: impl Fn()) {
        loop {
            match self.listener.accept().await {
                Ok(_) => told(),
                // Either it has gone already, or there is no descriptor left.
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// Whose connection goes to the server, until this is dropped.
struct Announced<'a> {
    port: &'a PrivatePort,
    source: Ipv4Addr,
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        let mut announced = self.port.announced();
        if let Some(at) = announced.iter().position(|other| *other == self.source) {
            announced.swap_remove(at);
        }
        // While others connect, the next of them tells the kernel. The address is still taken.
        if announced.is_empty() {
            // An error says that the door is gone.
            let _ = self.port.tell_kernel(&announced);
        }
    }
}

/// The program that chooses a socket for a new connection: the second, which is the server's, for a packet from this port of
/// an announced address; else the first.
fn program(port: u16, announced: &[Ipv4Addr]) -> Vec<Filter> {
    let mut program = vec![
        Filter::load_byte(IP_VERSION),
        Filter::skip_if(u32::from(IPV4_WITHOUT_OPTIONS)),
        Filter::choose(0),
        Filter::load_half(TCP_SOURCE_PORT),
        Filter::skip_if(u32::from(port)),
        Filter::choose(0),
        Filter::load_word(IP_SOURCE),
    ];
    for address in announced {
        program.extend([Filter::skip_unless(u32::from(*address)), Filter::choose(1)]);
    }
    program.push(Filter::choose(0));
    program
}

fn reusable_socket() -> io::Result<OwnedFd> {
    let fd = stream_socket()?;
    sockopt::set_socket_reuseport(&fd, true)?;
    Ok(fd)
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

/// Where the fields are, from the beginning of the IP header.
const IP_VERSION: u32 = 0;
const IP_SOURCE: u32 = 12;
const TCP_SOURCE_PORT: u32 = 20;
/// Version 4, and a header of five words.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;

/// The kernel takes programs of 4,096 instructions. An address takes two.
const MOST_ANNOUNCED: usize = 1000;
/// Strangers who have bound addresses in advance must have bound nearly all for this many to meet them.
const TRIES: u32 = 100;
const DOOR_BACKLOG: i32 = 128;
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Blocking;

    use rustix::net::accept;

    use super::*;

    /// A port, its door, and the server's socket.
    fn open() -> (Arc<PrivatePort>, Door, TcpListener) {
        let (port, mut door) = PrivatePort::open().unwrap();
        let server = TcpSocket::new_v4().unwrap();
        server.set_reuseport(true).unwrap();
        server.bind(port.address()).unwrap();
        let server = server.listen(4096).unwrap();
        door.bolt().unwrap();
        (port, door, server)
    }

    fn nobody_waits(server: &TcpListener) -> bool {
        accept(server).is_err_and(|error| error == Errno::AGAIN)
    }

    #[tokio::test]
    async fn only_the_connections_of_this_port_reach_the_server() {
        let (port, door, server) = open();
        let turned_away = Arc::new(Semaphore::new(0));
        let count = Arc::clone(&turned_away);
        tokio::spawn(door.turn_away(move || count.add_permits(1)));
        for _ in 0..3 {
            let stranger = TcpStream::connect(port.address()).await.unwrap();
            turned_away.acquire().await.unwrap().forget();
            stranger.readable().await.unwrap();
            assert_eq!(stranger.try_read(&mut [0]).unwrap(), 0, "it is closed");
            assert!(nobody_waits(&server));
            let own = port.connect().await.unwrap();
            let (accepted, peer) = server.accept().await.unwrap();
            assert_eq!((peer, accepted.local_addr().unwrap()), (own.local_addr().unwrap(), port.address()));
            assert!(nobody_waits(&server));
        }
    }

    #[tokio::test]
    async fn the_address_of_a_connection_helps_no_stranger() {
        let (port, _door, server) = open();
        let own = port.connect().await.unwrap();
        let _accepted = server.accept().await.unwrap();
        let source = own.local_addr().unwrap();
        let same = TcpSocket::new_v4().unwrap();
        same.set_reuseaddr(true).unwrap();
        assert_eq!(same.bind(source).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // With the address alone.
        let stranger = TcpSocket::new_v4().unwrap();
        stranger.bind((source.ip(), 0).into()).unwrap();
        let _stranger = stranger.connect(port.address()).await.unwrap();
        // Or with both, once they are free.
        sockopt::set_socket_linger(&own, Some(Duration::ZERO)).unwrap();
        drop(own);
        let late = stream_socket().unwrap();
        sockopt::set_socket_reuseaddr(&late, true).unwrap();
        bind(&late, &source).unwrap();
        let late = TcpSocket::from_std_stream(Blocking::from(late));
        let _late = late.connect(port.address()).await;
        assert!(nobody_waits(&server));
    }

    #[tokio::test]
    async fn many_may_connect_at_once() {
        let (port, _door, server) = open();
        let connecting: Vec<_> = (0..300)
            .map(|_| {
                let port = Arc::clone(&port);
                tokio::spawn(async move { port.connect().await })
            })
            .collect();
        let accepting = tokio::spawn(async move {
            for _ in 0..300 {
                server.accept().await.unwrap();
            }
        });
        let mut connected = Vec::new();
        for one in connecting {
            connected.push(one.await.unwrap().unwrap());
        }
        accepting.await.unwrap();
        assert!(port.announced().is_empty());
    }

    #[tokio::test]
    async fn the_kernel_takes_the_longest_program() {
        let (port, _door, server) = open();
        port.announced().resize(MOST_ANNOUNCED - 1, Ipv4Addr::LOCALHOST);
        let _own = port.connect().await.unwrap();
        let _accepted = server.accept().await.unwrap();
    }

    #[tokio::test]
    async fn nobody_else_may_listen_there() {
        let (port, _door, _server) = open();
        let other = TcpSocket::new_v4().unwrap();
        other.set_reuseport(true).unwrap();
        assert_eq!(other.bind(port.address()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn without_its_door_the_port_is_closed() {
        let (port, door, server) = open();
        drop((door, server));
        assert_eq!(port.connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
