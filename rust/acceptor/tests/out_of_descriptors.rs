//! What happens when the process has no descriptor left. The test lowers the limit of its process, so it is the only one here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use proxyproto_acceptor::{HeaderTimeout, Options, Outcome, ProxyListener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an event may take before it counts as never coming.
const NEVER: Duration = Duration::from_secs(20);

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";

#[tokio::test]
async fn the_longest_waiting_make_room_and_then_it_waits_for_descriptors() {
    let proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let header_timeout = HeaderTimeout::from_secs(60.0).unwrap();
    let options = Options::default().trusted(proxies).header_timeout(header_timeout);
    let listener = ProxyListener::bind("127.0.0.1:0", options).await.unwrap();
    let mut peers = Vec::new();
    for _ in 0..30 {
        peers.push(peer(&listener, b"P").await);
    }
    for _ in 0..4 {
        peers.push(peer(&listener, V1).await);
    }
    leave_descriptors(3);

    let mut served = Vec::new();
    for _ in 0..3 {
        served.push(timeout(NEVER, listener.accept()).await.unwrap().unwrap());
    }
    let evicted = stats(&listener, Outcome::PendingOverflow);
    assert_eq!(evicted, 30, "all that were late have made room");
    assert_eq!(listener.stats().unwrap().pauses, 0);

    let accept = async { listener.accept().await.map(drop) };
    tokio::pin!(accept);
    tokio::select! {
        accepted = &mut accept => panic!("{accepted:?}"),
        () = until_paused(&listener) => {}
    }
    served.pop();
    timeout(NEVER, accept).await.unwrap().unwrap();
}

async fn peer(listener: &ProxyListener, bytes: &[u8]) -> TcpStream {
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    peer.write_all(bytes).await.unwrap();
    peer
}

/// Sets the limit so that this process can open `count` more descriptors.
fn leave_descriptors(count: u64) {
    // The limit is on the number of a descriptor. Nothing has been closed yet, so the next number is the first free one.
    let next = std::fs::File::open("/dev/null").unwrap();
    let next = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&next)).unwrap();
    let limit = Rlimit { current: Some(next + count), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

async fn until_paused(listener: &ProxyListener) {
    let paused = async {
        while listener.stats().unwrap().pauses == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(NEVER, paused).await.unwrap();
}

fn stats(listener: &ProxyListener, outcome: Outcome) -> u64 {
    let outcomes = listener.stats().unwrap().outcomes;
    outcomes.into_iter().find(|(other, _)| *other == outcome).unwrap().1
}
