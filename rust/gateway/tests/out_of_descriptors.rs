//! What happens when the process has few descriptors. The test lowers the limit of its process, so it is the only one here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use proxyproto_gateway::acceptor::{self, BindOptions, Listener, ProxyProtocol, Socket};
use proxyproto_gateway::{Admission, Event, Gateway, HeaderOut, ListenerOptions, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long an event may take before it counts as never coming.
const NEVER: Duration = Duration::from_secs(20);

/// A CONNECT of MQTT 3.1.1.
const CONNECT: &[u8] = b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x03dev";

#[tokio::test]
async fn strangers_who_say_nothing_leave_descriptors_for_servers() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = Options::default();
    options.upstream.servers = vec![server.local_addr().unwrap().to_string().parse().unwrap()];
    options.upstream.header = HeaderOut::Off;
    let high = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(84), maximum: high.maximum }).unwrap();
    let gateway = Gateway::start(options).unwrap();
    assert_eq!(gateway.stats().most_connections, 10);
    // The clients have their descriptors in this process too.
    setrlimit(Resource::Nofile, high).unwrap();
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), BindOptions::default()).unwrap();
    let address = socket.local_addr().to_string();
    let listening = acceptor::Options::default().proxy_protocol(ProxyProtocol::Off);
    gateway
        .serve(Arc::new(Listener::start(socket, listening).unwrap()), ListenerOptions::new("tcp"))
        .unwrap();

    let mut client = TcpStream::connect(&address).await.unwrap();
    client.write_all(CONNECT).await.unwrap();
    let Some(Event::Login(login)) = soon(gateway.next()).await else { unreachable!() };
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let Some(Event::Refused(refused)) = soon(gateway.next()).await else { unreachable!() };
    assert_eq!(refused.cause.code(), "busy");
    assert!(refused.detail.contains("ulimit -n"), "{}", refused.detail);

    gateway.admit(login.token, Admission::default());
    let mut upstream = loop {
        let (mut stream, _) = soon(server.accept()).await.unwrap();
        // A check says nothing.
        if soon(stream.read_exact(&mut [0; 17])).await.is_ok() {
            break stream;
        }
    };
    upstream.write_all(b"\x20\x02\0\0").await.unwrap();
    soon(client.read_exact(&mut [0; 4])).await.unwrap();
}

async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(NEVER, event).await.unwrap()
}
