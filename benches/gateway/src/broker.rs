//! A broker that says yes to everybody, and then sends back what comes, or takes it and answers each PINGREQ.

use std::io;
use std::net::SocketAddr;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::packets::{CONNACK, PINGREQ, PINGRESP};

/// Starts it on a thread of its own.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(256);
    while buffer.len() < 2 || buffer.len() < 2 + usize::from(buffer[1]) {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
    let echoes = buffer.windows(4).any(|window| window == b"echo");
    stream.write_all(CONNACK).await?;
    // An idle session of the broker's shall be small, so that thousands of them fit.
    drop(buffer);
    if echoes { echo(stream).await } else { sink(stream).await }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut piece = [0; 128];
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            count => stream.write_all(&piece[..count]).await?,
        }
    }
}

async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut last = 0;
    loop {
        stream.readable().await?;
        let mut piece = vec![0; 256 * 1024];
        let count = match stream.try_read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let is_ping = match piece[..count] {
            [byte] => [last, byte] == *PINGREQ,
            [.., first, second] => [first, second] == *PINGREQ,
            [] => false,
        };
        last = piece[count - 1];
        if is_ping {
            stream.write_all(PINGRESP).await?;
        }
    }
}
