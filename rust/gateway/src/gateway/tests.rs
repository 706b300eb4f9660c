//! A gateway whose servers have names that change.

use std::net::SocketAddr;

use proxyproto_acceptor::{self as acceptor, BindOptions, ProxyProtocol, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;

const NEVER: Duration = Duration::from_secs(20);
const CONNECT: &[u8] = b"\x10\x0f\0\x04MQTT\x04\x02\0\0\0\x03dev";
const WELCOME: &[u8] = b"\x20\x02\0\0";
const UNAVAILABLE: &[u8] = b"\x20\x02\0\x03";
const PINGREQ: &[u8] = b"\xc0\0";

async fn expect(peer: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(NEVER, peer.read_exact(&mut bytes)).await.expect("bytes that come").unwrap();
    assert_eq!(bytes, expected);
}

/// The next connection that sends a CONNECT. A check sends nothing.
async fn accept(server: &TcpListener) -> TcpStream {
    loop {
        let (mut peer, _) = timeout(NEVER, server.accept()).await.expect("a connection").unwrap();
        if matches!(peer.peek(&mut [0]).await, Ok(1)) {
            expect(&mut peer, CONNECT).await;
            return peer;
        }
    }
}

/// A client that has sent its CONNECT and is let in.
async fn client(gateway: &Gateway, front: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(front).await.unwrap();
    client.write_all(CONNECT).await.unwrap();
    loop {
        match timeout(NEVER, gateway.next()).await.expect("an event") {
            Some(Event::Login(login)) => {
                assert!(gateway.admit(login.token, Admission::default()));
                return client;
            }
            Some(_) => {}
            None => panic!("the gateway has closed"),
        }
    }
}

async fn until_servers_are(gateway: &Gateway, expected: &[SocketAddr]) {
    let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
    let servers = || -> Vec<_> {
        gateway.stats().servers.iter().map(|server| server.server.address.to_string()).collect()
    };
    timeout(NEVER, async {
        while servers() != expected {
            yield_now().await;
        }
    })
    .await
    .expect("other servers");
}

#[tokio::test]
async fn a_name_that_changes_moves_new_clients_and_leaves_sessions() {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first_address = first.local_addr().unwrap();
    let second_address = SocketAddr::new([127, 0, 0, 2].into(), first_address.port());
    let second = TcpListener::bind(second_address).await.unwrap();
    // What the resolver says: addresses, none, or that it does not know just now.
    let answer = Arc::new(Mutex::new(Some(vec![first_address])));
    let says = Arc::clone(&answer);
    let lookup: Lookup = Arc::new(move |_, _| {
        let answer = lock(&says).clone();
        Box::pin(async move { answer.ok_or(io::ErrorKind::TimedOut.into()) })
    });
    let mut options = Options { workers: 1, ..Options::default() };
    options.upstream.servers = vec![format!("broker:{}", first_address.port()).parse().unwrap()];
    options.upstream.header = crate::options::HeaderOut::Off;
    options.upstream.resolve_interval = Duration::from_millis(5);
    options.upstream.check.interval = Duration::from_secs(3600);
    let gateway = Gateway::start_with(options, lookup).unwrap();
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), BindOptions::default()).unwrap();
    let front = socket.local_addr().to_string().parse().unwrap();
    let plain = acceptor::Options::default().proxy_protocol(ProxyProtocol::Off);
    let listener = Listener::start(socket, plain).unwrap();
    gateway.serve(Arc::new(listener), ListenerOptions::new("tcp")).unwrap();

    let mut old = client(&gateway, front).await;
    let mut old_upstream = accept(&first).await;
    old_upstream.write_all(WELCOME).await.unwrap();
    expect(&mut old, WELCOME).await;

    *lock(&answer) = Some(vec![second_address]);
    until_servers_are(&gateway, &[second_address]).await;
    let mut new = client(&gateway, front).await;
    let mut new_upstream = accept(&second).await;
    new_upstream.write_all(WELCOME).await.unwrap();
    expect(&mut new, WELCOME).await;
    old.write_all(PINGREQ).await.unwrap();
    expect(&mut old_upstream, PINGREQ).await;

    *lock(&answer) = Some(vec![second_address, first_address]);
    until_servers_are(&gateway, &[first_address, second_address]).await;
    *lock(&answer) = Some(Vec::new());
    until_servers_are(&gateway, &[]).await;
    expect(&mut client(&gateway, front).await, UNAVAILABLE).await;
    *lock(&answer) = None;
    new.write_all(PINGREQ).await.unwrap();
    expect(&mut new_upstream, PINGREQ).await;
    *lock(&answer) = Some(vec![first_address]);
    until_servers_are(&gateway, &[first_address]).await;
    let _last = client(&gateway, front).await;
    accept(&first).await;
}
