//! A listener for tokio servers: `accept` takes a connection from the kernel, in the task that calls it, and reads the header.
//!
//! A connection whose header is there is never handed from thread to thread. One whose header is late waits in a task of the
//! listener, and comes back through the queue when its header is complete.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{ToSocketAddrs, lookup_host};
use tokio::runtime::Handle;
use tokio::task::{coop, yield_now};

use crate::addresses::LocalAddr;
use crate::backlog::End;
use crate::listener::{Closed, Inherited, Listener, Stats};
use crate::options::{OptionError, Options};
use crate::proxied_stream::ProxiedStream;
use crate::queue::Connection;
use crate::refusal::Refusal;
use crate::socket::{BindOptions, Socket};
use crate::sys;

/// How many connections in a row may be refused or late before other tasks have their turn.
const MOST_PASSED_OVER: u32 = 16;

/// A listening socket whose `accept` has already read the PROXY header.
///
/// It works on the runtime on which it is made, as [`tokio::net::TcpListener`] does. The runtime needs I/O and time enabled.
/// Several tasks may accept at once. A connection whose header is late keeps nobody waiting: a task of the listener waits for
/// it, until `header_timeout`, even while nobody accepts.
///
/// Refused connections are counted ([`stats`](Self::stats)) and passed to [`on_refused`](Self::on_refused). With the feature
/// `tracing` they are also events of the target `proxyproto_acceptor`: one for each peer and reason, then a count every 10 s.
///
/// Dropping it closes the socket and every connection that was not accepted.
pub struct ProxyListener {
    listener: Listener,
    /// The listening socket, for this runtime.
    backlog: AsyncFd<Arc<OwnedFd>>,
    /// Readable when a late connection has its whole header, when there is something to report, and at the end.
    wake: AsyncFd<Arc<OwnedFd>>,
    runtime: Handle,
    /// Whether the system has refused to accept. The listener's task deals with that, and then says when to try again.
    is_paused: AtomicBool,
    on_refused: Option<OnRefused>,
}

type OnRefused = Box<dyn Fn(&Refusal) + Send + Sync>;

impl ProxyListener {
    /// Binds the first of the addresses that can be bound, listens on it, and serves it as `options` say.
    ///
    /// As with [`tokio::net::TcpListener::bind`], a successor can bind the address at once, and an IPv6 socket takes IPv4
    /// connections too. To bind in another way, use [`from_socket`](Self::from_socket).
    ///
    /// ```
    /// use proxyproto_acceptor::{Options, ProxyListener};
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let proxies = ["127.0.0.0/8".parse()?].into_iter().collect();
    /// let listener = ProxyListener::bind("127.0.0.1:0", Options::default().trusted(proxies)).await?;
    ///
    /// let mut proxy = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
    /// proxy.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nhello").await?;
    ///
    /// let (mut stream, client) = listener.accept().await?;
    /// assert_eq!(client.to_string(), "192.0.2.1:56324");
    /// let mut hello = [0; 5];
    /// stream.read_exact(&mut hello).await?;
    /// assert_eq!(&hello, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidInput` with an [`OptionError`] inside if the options make no sense. Otherwise the error of the system for the
    /// last address.
    pub async fn bind(address: impl ToSocketAddrs, options: Options) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address to bind");
        for address in lookup_host(address).await? {
            match Socket::bind(address, BindOptions::default().dualstack(true)) {
                Ok(socket) => return Self::from_socket(socket, options),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Serves a socket that listens already. Only `O_NONBLOCK` is set on it.
    ///
    /// # Errors
    ///
    /// As [`from_socket`](Self::from_socket).
    pub fn from_std(listener: std::net::TcpListener, options: Options) -> io::Result<Self> {
        Self::from_socket(Socket::adopt(listener.into(), BindOptions::default().backlog)?, options)
    }

    /// Serves a socket that was bound in another way, on a UNIX path, or by another program: see [`Socket`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` with an [`OptionError`] inside if the options make no sense. `Other` outside of a runtime. Otherwise the
    /// error of the system if it has no descriptor or memory.
    pub fn from_socket(socket: Socket, options: Options) -> io::Result<Self> {
        Self::spawn_on(&Handle::try_current().map_err(io::Error::other)?, socket, options)
    }

    /// Serves a socket on `runtime`, which must have I/O and time enabled. It starts no thread.
    ///
    /// # Errors
    ///
    /// As [`from_socket`](Self::from_socket).
    pub fn spawn_on(runtime: &Handle, socket: Socket, options: Options) -> io::Result<Self> {
        let listener = Listener::start_on(runtime, socket.with_ahead(0), options, None)?;
        let _entered = runtime.enter();
        let backlog = sys::register_readable(listener.listening()?.into())?;
        let wake = sys::register_readable(listener.wake_fd()?.into())?;
        Ok(Self {
            listener,
            backlog,
            wake,
            runtime: runtime.clone(),
            is_paused: AtomicBool::new(false),
            on_refused: None,
        })
    }

    /// Calls `told` for refused connections, once for each reason and address: with the first one, and then at most every
    /// 100 ms with the count of those that came since. `accept` calls it, so it must not block.
    #[must_use]
    pub fn on_refused(mut self, told: impl Fn(&Refusal) + Send + Sync + 'static) -> Self {
        self.on_refused = Some(Box::new(told));
        self
    }

    /// Accepts the next connection that has a whole header and is allowed in. Returns it with the address of its client: see
    /// [`ProxiedStream::client_addr`].
    ///
    /// It is cancel safe: if it is dropped before it returns, no connection is lost. It skips connections that fail. If the
    /// process has no descriptor left, it waits for one.
    ///
    /// # Errors
    ///
    /// `NotConnected` with [`Closed`] inside when the listener is drained and empty, or its socket is broken. No connection
    /// comes after that.
    pub async fn accept(&self) -> io::Result<(ProxiedStream, SocketAddr)> {
        let mut passed_over = 0;
        loop {
            coop::consume_budget().await;
            match self.try_accept() {
                Ok(Some(connection)) => return Ok(self.stream(connection)),
                Ok(None) if passed_over < MOST_PASSED_OVER => passed_over += 1,
                Ok(None) => {
                    passed_over = 0;
                    yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`accept`](Self::accept), for use in a `poll` function. Only the task that polled last is woken.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(ProxiedStream, SocketAddr)>> {
        let coop = ready!(coop::poll_proceed(cx));
        for _ in 0..MOST_PASSED_OVER {
            match self.try_accept() {
                Ok(Some(connection)) => {
                    coop.made_progress();
                    return Poll::Ready(Ok(self.stream(connection)));
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_wait(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The address on which it listens.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a UNIX socket: see [`local_name`](Self::local_name).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.local_name() {
            LocalAddr::Ip(address) => Ok(*address),
            LocalAddr::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The address or the name of the UNIX socket on which it listens.
    #[must_use]
    pub fn local_name(&self) -> &LocalAddr {
        self.listener.local_addr()
    }

    /// As [`Listener::stats`].
    ///
    /// # Errors
    ///
    /// As [`Listener::stats`].
    pub fn stats(&self) -> Result<Stats, Inherited> {
        self.listener.stats()
    }

    /// As [`Listener::options`].
    #[must_use]
    pub fn options(&self) -> Arc<Options> {
        self.listener.options()
    }

    /// As [`Listener::update`].
    ///
    /// # Errors
    ///
    /// As [`Listener::update`].
    pub fn update(&self, options: Options) -> Result<(), OptionError> {
        self.listener.update(options)
    }

    /// As [`Listener::drain`]. `accept` still returns the clients that have connected, and then an error.
    ///
    /// # Errors
    ///
    /// As [`Listener::drain`].
    pub fn drain(&self) -> Result<(), Inherited> {
        self.listener.drain()
    }

    /// Takes a connection that is there now; `None` if it is refused or its header is late.
    ///
    /// The error `WouldBlock` says that there is none until one of the two descriptors becomes readable again.
    fn try_accept(&self) -> io::Result<Option<Connection>> {
        // Connections that have waited for their header go first.
        match self.wake.try_io(Interest::READABLE, |_| self.take_ready()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.takes_in() => {
                self.backlog.try_io(Interest::READABLE, |_| self.take_in())
            }
            ready => ready.map(Some),
        }
    }

    /// Waits until one of the two descriptors may be readable.
    async fn wait(&self) -> io::Result<()> {
        tokio::select! {
            wake = self.wake.readable() => wake.map(drop),
            backlog = self.backlog.readable(), if self.takes_in() => backlog.map(drop),
        }
    }

    fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.wake.poll_read_ready(cx) {
            Poll::Pending if self.takes_in() => self.backlog.poll_read_ready(cx).map_ok(drop),
            wake => wake.map_ok(drop),
        }
    }

    /// Takes what the listener's task has for this taker.
    fn take_ready(&self) -> io::Result<Connection> {
        let ready = self.listener.take_ready();
        if let Some(connection) = ready.connection {
            return Ok(connection);
        }
        if ready.is_closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, Closed::Closed));
        }
        if ready.shows_backlog {
            self.is_paused.store(false, Ordering::Release);
        }
        self.tell();
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Takes one connection from the kernel.
    fn take_in(&self) -> io::Result<Option<Connection>> {
        match self.listener.accept_one() {
            Ok(arrived) => Ok(arrived),
            Err(End::Empty) => Err(io::ErrorKind::WouldBlock.into()),
            Err(trouble) => {
                // The descriptor stays marked as readable: when the trouble is over, no new event need come.
                self.is_paused.store(true, Ordering::Release);
                self.listener.report(trouble);
                Ok(None)
            }
        }
    }

    /// Whether connections may be taken from the kernel now.
    fn takes_in(&self) -> bool {
        self.listener.is_serving() && !self.is_paused.load(Ordering::Acquire)
    }

    fn stream(&self, connection: Connection) -> (ProxiedStream, SocketAddr) {
        let is_tcp = matches!(self.local_name(), LocalAddr::Ip(_));
        let stream = ProxiedStream::new(connection, is_tcp, self.runtime.clone());
        let client = stream.client_addr();
        (stream, client)
    }

    fn tell(&self) {
        let Ok(taken) = self.listener.take_refusals() else { return };
        if let Some(told) = &self.on_refused {
            taken.records.iter().for_each(told);
        }
        #[cfg(feature = "tracing")]
        taken.lines.iter().for_each(crate::events::say);
    }
}

impl fmt::Debug for ProxyListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyListener").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// Whether an error of `accept` says that no connection will come any more.
#[cfg(feature = "stream")]
pub(crate) fn is_end(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Closed>)
}
