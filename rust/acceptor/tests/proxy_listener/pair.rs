//! A listener and the peers that talk to it. Every wait is for an event. Only a failure reaches the limit of a wait.

use std::time::Duration;

use proxyproto_acceptor::{AddressSet, HeaderTimeout, Options, Outcome, ProxiedStream, ProxyListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an event may take before it counts as never coming.
const NEVER: Duration = Duration::from_secs(20);

pub(crate) const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";
pub(crate) const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

pub(crate) fn networks(texts: &[&str]) -> AddressSet {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Trusts loopback. The header timeout is long, for busy machines. A test that waits for the timeout sets its own.
pub(crate) fn options() -> Options {
    let header_timeout = HeaderTimeout::from_secs(60.0).unwrap();
    Options::default().trusted(networks(&["127.0.0.0/8"])).header_timeout(header_timeout)
}

pub(crate) async fn listen(options: Options) -> ProxyListener {
    ProxyListener::bind("127.0.0.1:0", options).await.unwrap()
}

/// A peer that has sent `bytes`.
pub(crate) async fn peer(listener: &ProxyListener, bytes: &[u8]) -> TcpStream {
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    peer.set_nodelay(true).unwrap();
    peer.write_all(bytes).await.unwrap();
    peer
}

/// A peer that has sent a header which names this client.
pub(crate) async fn peer_of(listener: &ProxyListener, client: &str) -> TcpStream {
    peer(listener, format!("PROXY TCP4 {client} 198.51.100.1 12345 1883\r\n").as_bytes()).await
}

/// Waits for `event` and returns its result.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(NEVER, event).await.expect("an event that comes")
}

/// The next connection.
pub(crate) async fn accept(listener: &ProxyListener) -> ProxiedStream {
    soon(listener.accept()).await.unwrap().0
}

/// Reads until the peer closes.
pub(crate) async fn read_all(mut stream: ProxiedStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// Waits until the listener has closed this connection.
pub(crate) async fn until_closed(mut peer: TcpStream) {
    // A reset is a close too. It comes if the listener did not read all bytes.
    assert!(matches!(soon(peer.read(&mut [0; 16])).await, Ok(0) | Err(_)));
}

/// Waits until `is_so` of the listener, while other tasks run.
pub(crate) async fn until(listener: &ProxyListener, is_so: impl Fn(&ProxyListener) -> bool) {
    soon(async {
        while !is_so(listener) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) fn count(listener: &ProxyListener, outcome: Outcome) -> u64 {
    let stats = listener.stats().unwrap();
    stats.outcomes.iter().find(|(other, _)| *other == outcome).unwrap().1
}

pub(crate) fn pending(listener: &ProxyListener) -> usize {
    listener.stats().unwrap().pending
}
