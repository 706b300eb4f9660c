//! The clients: all on one thread.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::fans::Fan;
use crate::packets::{self, CONNACK, DISCONNECT, PINGREQ, PINGRESP};

/// Those who load a relay.
pub(crate) struct Clients(Runtime);

impl Clients {
    pub(crate) fn new() -> io::Result<Self> {
        Builder::new_current_thread().enable_all().build().map(Self)
    }

    /// Begins so many sessions, one after the other.
    pub(crate) fn connect(
        &self,
        relay: SocketAddr,
        count: u32,
        client_id: &str,
    ) -> io::Result<Vec<TcpStream>> {
        self.0.block_on(async {
            let mut sessions = Vec::new();
            for _ in 0..count {
                sessions.push(connect(relay, client_id).await?);
            }
            Ok(sessions)
        })
    }

    /// Begins so many sessions with ids of their own, one after the other.
    pub(crate) fn connect_each(
        &self,
        broker: SocketAddr,
        count: u32,
        name: &str,
    ) -> io::Result<Vec<TcpStream>> {
        self.0.block_on(async {
            let mut sessions = Vec::new();
            for number in 0..count {
                sessions.push(connect(broker, &format!("{name}-{number}")).await?);
            }
            Ok(sessions)
        })
    }

    /// How many of so many messages arrive in a second.
    pub(crate) fn fan(&self, broker: SocketAddr, fan: Fan, messages: usize) -> io::Result<f64> {
        self.0.block_on(fan.rate(broker, messages))
    }

    /// In each session so many packets go to the broker and come back, one at a time.
    pub(crate) fn echo(&self, sessions: &mut Vec<TcpStream>, rounds: u32) -> io::Result<()> {
        self.0.block_on(async {
            let mut tasks = JoinSet::new();
            for mut session in sessions.drain(..) {
                tasks.spawn(async move {
                    let packet = packets::publish(64);
                    let mut back = [0; 64];
                    for _ in 0..rounds {
                        session.write_all(&packet).await?;
                        session.read_exact(&mut back).await?;
                    }
                    Ok::<_, io::Error>(session)
                });
            }
            while let Some(session) = tasks.join_next().await {
                sessions.push(session.map_err(io::Error::other)??);
            }
            Ok(())
        })
    }

    /// Sends these bytes so many times, and waits until the broker has taken all.
    pub(crate) fn send(&self, session: &mut TcpStream, bytes: &[u8], count: u32) -> io::Result<()> {
        self.0.block_on(async {
            for _ in 0..count {
                session.write_all(bytes).await?;
            }
            session.write_all(PINGREQ).await?;
            expect(session, PINGRESP).await
        })
    }

    /// So many sessions, eight at a time: each sends one packet, gets it back, and ends.
    pub(crate) fn come_and_go(&self, relay: SocketAddr, count: u32) -> io::Result<()> {
        self.0.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..8 {
                tasks.spawn(async move {
                    for _ in 0..count / 8 {
                        let mut session = connect(relay, "echo").await?;
                        let packet = packets::publish(64);
                        session.write_all(&packet).await?;
                        expect(&mut session, &packet).await?;
                        session.write_all(DISCONNECT).await?;
                        session.shutdown().await?;
                        let mut rest = Vec::new();
                        session.read_to_end(&mut rest).await?;
                    }
                    Ok::<_, io::Error>(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.map_err(io::Error::other)??;
            }
            Ok(())
        })
    }

    /// Begins so many sessions in TLS, one after the other.
    pub(crate) fn connect_tls(
        &self,
        relay: SocketAddr,
        tls: &TlsConnector,
        count: u32,
    ) -> io::Result<Vec<TlsStream<TcpStream>>> {
        self.0.block_on(async {
            let mut sessions = Vec::new();
            for _ in 0..count {
                let mut session = shake_hands(relay, tls).await?;
                log_in(&mut session, "sink").await?;
                sessions.push(session);
            }
            Ok(sessions)
        })
    }

    /// So many handshakes, eight at a time. Each client says goodbye behind its handshake.
    pub(crate) fn shake_hands(&self, relay: SocketAddr, tls: &TlsConnector, count: u32) -> io::Result<()> {
        self.0.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..8 {
                let tls = tls.clone();
                tasks.spawn(async move {
                    for _ in 0..count / 8 {
                        let mut stream = shake_hands(relay, &tls).await?;
                        stream.shutdown().await?;
                        // How the other side ends is its own affair.
                        let _ = stream.read_to_end(&mut Vec::new()).await;
                    }
                    Ok::<_, io::Error>(())
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.map_err(io::Error::other)??;
            }
            Ok(())
        })
    }

    /// How long each of so many packets takes from one client to another, in microseconds.
    pub(crate) fn deliver(&self, address: SocketAddr, count: usize) -> io::Result<Vec<f64>> {
        self.0.block_on(async {
            let mut subscriber = connect(address, "subscriber").await?;
            subscriber.write_all(&packets::subscribe(0)).await?;
            expect(&mut subscriber, &packets::suback(0)).await?;
            let mut publisher = connect(address, "publisher").await?;
            let packet = packets::publish(64);
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let since = Instant::now();
                publisher.write_all(&packet).await?;
                expect(&mut subscriber, &packet).await?;
                times.push(since.elapsed().as_secs_f64() * 1e6);
            }
            for mut session in [publisher, subscriber] {
                session.write_all(DISCONNECT).await?;
            }
            Ok(times)
        })
    }
}

pub(crate) async fn connect(relay: SocketAddr, client_id: &str) -> io::Result<TcpStream> {
    let mut session = dial(relay).await?;
    log_in(&mut session, client_id).await?;
    Ok(session)
}

async fn dial(relay: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpSocket::new_v4()?.connect(relay).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn shake_hands(relay: SocketAddr, tls: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    tls.connect(name, dial(relay).await?).await
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(session: &mut S, client_id: &str) -> io::Result<()> {
    session.write_all(&packets::connect(client_id)).await?;
    session.flush().await?;
    expect(session, CONNACK).await
}

pub(crate) async fn expect<S: AsyncRead + Unpin>(session: &mut S, expected: &[u8]) -> io::Result<()> {
    let mut bytes = vec![0; expected.len()];
    session.read_exact(&mut bytes).await?;
    if bytes == expected { Ok(()) } else { Err(io::Error::other(format!("got {}", bytes.escape_ascii()))) }
}
