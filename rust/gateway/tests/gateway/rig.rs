//! A gateway, its clients and its servers. Every wait is for an event, with a limit that only a failure reaches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proxyproto_gateway::acceptor::{self, BindOptions, Listener, Socket};
use proxyproto_gateway::mqtt::Version;
use proxyproto_gateway::{
    Admission, Cause, Ended, Event, Gateway, ListenerOptions, Login, Options, Refused, ServerChange, Stats,
    Token, Welcomed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::packets::{connack, connack_out, connect};

/// How long an event may take before it counts as never coming.
const NEVER: Duration = Duration::from_secs(20);

/// The header of a proxy on loopback: the client is 192.0.2.1:12345.
pub(crate) const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";

/// What `event` comes to.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(NEVER, event).await.expect("an event that comes")
}

/// A gateway with one listener on loopback, which takes connections without a header.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    address: SocketAddr,
}

impl Rig {
    pub(crate) fn new(servers: &[&Server], change: impl FnOnce(&mut Options)) -> Self {
        let listening = acceptor::Options::default().proxy_protocol(acceptor::ProxyProtocol::Off);
        Self::with(servers, listening, ListenerOptions::new("tcp"), change)
    }

    pub(crate) fn with(
        servers: &[&Server],
        listening: acceptor::Options,
        serving: ListenerOptions,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let mut options = options(servers);
        change(&mut options);
        let gateway = Gateway::start(options).unwrap();
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), BindOptions::default()).unwrap();
        let address = socket.local_addr().to_string().parse().unwrap();
        let listener = Listener::start(socket, listening).unwrap();
        gateway.serve(Arc::new(listener), serving).unwrap();
        Self { gateway, address }
    }

    /// A client that has sent this.
    pub(crate) async fn client(&self, bytes: &[u8]) -> Peer {
        let mut peer = Peer(TcpStream::connect(self.address).await.unwrap());
        peer.0.set_nodelay(true).unwrap();
        peer.send(bytes).await;
        peer
    }

    pub(crate) async fn event(&self) -> Event {
        soon(self.gateway.next()).await.expect("an open gateway")
    }

    pub(crate) async fn login(&self) -> Login {
        match self.event().await {
            Event::Login(login) => login,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn welcomed(&self) -> Welcomed {
        match self.event().await {
            Event::Welcomed(welcomed) => welcomed,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn refused(&self) -> Refused {
        match self.event().await {
            Event::Refused(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ended(&self) -> Ended {
        match self.event().await {
            Event::Ended(ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn server_change(&self) -> ServerChange {
        match self.event().await {
            Event::Server(change) => change,
            other => panic!("{other:?}"),
        }
    }

    /// Lets the next login in as it is.
    pub(crate) async fn admit(&self) -> Token {
        let token = self.login().await.token;
        assert!(self.gateway.admit(token, Admission::default()));
        token
    }

    /// A client of this version that is let in, and its connection at the server. What both have sent so far has been read.
    pub(crate) async fn session(&self, server: &Server, version: Version) -> Session {
        self.session_of(server, version, &connect(version, "dev")).await
    }

    /// As [`session`](Self::session), with this CONNECT.
    pub(crate) async fn session_of(&self, server: &Server, version: Version, packet: &[u8]) -> Session {
        let mut client = self.client(packet).await;
        let token = self.admit().await;
        let mut upstream = server.accept().await;
        upstream.expect(packet).await;
        upstream.send(&connack(version, 0)).await;
        assert_eq!(self.welcomed().await.token, token);
        client.expect(&connack_out(version, self.gateway.options().mqtt.max_packet_size)).await;
        Session { client, upstream, token }
    }

    /// Waits until the gateway's numbers are so.
    pub(crate) async fn until(&self, are_so: impl Fn(&Stats) -> bool) {
        soon(async {
            while !are_so(&self.gateway.stats()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// The options of most tests: no header goes upstream, and nobody checks the servers, so that they see clients alone.
pub(crate) fn options(servers: &[&Server]) -> Options {
    let mut options = Options::default();
    options.workers = 2;
    options.upstream.servers = servers.iter().map(|server| server.name().parse().unwrap()).collect();
    options.upstream.header = proxyproto_gateway::HeaderOut::Off;
    options.upstream.check.interval = Duration::from_secs(3600);
    options
}

/// A session that has begun.
pub(crate) struct Session {
    pub(crate) client: Peer,
    pub(crate) upstream: Peer,
    pub(crate) token: Token,
}

/// A server that does what the test says.
pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    pub(crate) async fn new() -> Self {
        Self::at("127.0.0.1:0").await
    }

    /// A server at this address, such as that of one that has gone.
    pub(crate) async fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    /// Waits until the gateway has looked whether it is there.
    pub(crate) async fn looked_at(&self) {
        soon(self.listener.accept()).await.unwrap();
    }

    /// The next connection that says something, or is reset. The gateway's first check closes without a word.
    pub(crate) async fn accept(&self) -> Peer {
        loop {
            let (stream, _) = soon(self.listener.accept()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            if matches!(soon(stream.peek(&mut [0])).await, Ok(1)) {
                return Peer(stream);
            }
        }
    }
}

/// The other end of one of the gateway's connections.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads exactly this.
    pub(crate) async fn expect(&mut self, expected: &[u8]) {
        let read = self.read(expected.len()).await;
        assert_eq!(read.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// What comes until the end, be it a reset.
    pub(crate) async fn read_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = soon(self.0.read(&mut piece)).await {
            bytes.extend_from_slice(&piece[..count]);
        }
        bytes
    }

    /// Waits for the end, before which nothing comes.
    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.read_all().await.escape_ascii().to_string(), "");
    }

    /// Sends no more.
    pub(crate) async fn shut_down(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }
}

pub(crate) fn cause(code: &str) -> Cause {
    code.parse().unwrap()
}
