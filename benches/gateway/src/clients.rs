//! The clients: all on one thread.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

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
}

async fn connect(relay: SocketAddr, client_id: &str) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let mut session = socket.connect(relay).await?;
    session.set_nodelay(true)?;
    session.write_all(&packets::connect(client_id)).await?;
    expect(&mut session, CONNACK).await?;
    Ok(session)
}

async fn expect(session: &mut TcpStream, expected: &[u8]) -> io::Result<()> {
    let mut bytes = vec![0; expected.len()];
    session.read_exact(&mut bytes).await?;
    if bytes == expected { Ok(()) } else { Err(io::Error::other(format!("got {}", bytes.escape_ascii()))) }
}
