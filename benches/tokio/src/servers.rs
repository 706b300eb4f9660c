//! The servers: each answers a request of one line and closes.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use proxyproto_acceptor::{Options, ProxyListener};
use proxyproto_codec::{Header, Status, decode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::timeout;

const REPLY: &[u8] = b"pong\r\n";

/// Serves until the process is ended; prints its address, then its CPU time when it is asked. With 0 workers it is one
/// thread.
pub(crate) fn serve(server: &str, workers: usize) -> io::Result<()> {
    let mut builder = match workers {
        0 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(workers.max(1)).enable_all().build()?;
    thread::spawn(crate::tell_cpu_time);
    runtime.block_on(async {
        match server {
            "ours" => ours().await,
            "naive" => naive(None).await,
            _ => naive(Some(Duration::from_secs(5))).await,
        }
    })
}

async fn ours() -> io::Result<()> {
    let proxies = ["127.0.0.0/8".parse().map_err(io::Error::other)?].into_iter().collect();
    let listener = ProxyListener::bind("127.0.0.1:0", Options::default().trusted(proxies)).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, client) = listener.accept().await?;
        tokio::spawn(answer(stream, client, Vec::new()));
    }
}

async fn naive(deadline: Option<Duration>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (mut stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            let read = match deadline {
                Some(deadline) => timeout(deadline, read_header(&mut stream)).await??,
                None => read_header(&mut stream).await?,
            };
            let (header, payload) = read;
            let client = header.source().and_then(|source| source.socket_addr()).unwrap_or(peer);
            answer(stream, client, payload).await
        });
    }
}

/// The header, and what has come behind it.
async fn read_header(stream: &mut TcpStream) -> io::Result<(Header, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(536);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Status::Complete(header) =
            decode(&bytes, &proxyproto_codec::Options::default()).map_err(io::Error::other)?
        {
            let payload = bytes[header.raw().len()..].to_vec();
            return Ok((header.to_owned(), payload));
        }
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    client: SocketAddr,
    mut request: Vec<u8>,
) -> io::Result<()> {
    std::hint::black_box(client);
    while !request.ends_with(b"\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(REPLY).await
}
