//! An echo server behind a proxy. Try it:
//!
//! ```sh
//! cargo run --example echo &
//! printf 'PROXY TCP4 192.0.2.1 198.51.100.1 56324 7\r\nhello' | nc -q 1 127.0.0.1 7007
//! ```

use std::io;
use std::net::SocketAddr;

use proxyproto_acceptor::{Options, ProxiedStream, ProxyListener};
use tokio::io::AsyncWriteExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    // List only your own proxies here: a trusted peer can claim to speak for any client.
    let proxies = ["127.0.0.0/8".parse()?].into_iter().collect();
    let listener = ProxyListener::bind("127.0.0.1:7007", Options::default().trusted(proxies)).await?;
    loop {
        let (stream, client) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = echo(stream, client).await {
                tracing::info!("{client}: {error}");
            }
        });
    }
}

async fn echo(mut stream: ProxiedStream, client: SocketAddr) -> io::Result<()> {
    tracing::info!("{client} through {}", stream.peer_addr());
    stream.write_all(format!("you are {client}\n").as_bytes()).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}
