//! The listener for axum, and as a stream.

use std::net::SocketAddr;
use std::pin::Pin;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::{Stream, StreamExt};
use proxyproto_acceptor::{ClientInfo, ProxyListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pair::{V1, V2_LOCAL, listen, options, peer, soon};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";

/// Sends `header` and a request, and returns the body of the answer.
async fn ask(address: SocketAddr, header: &[u8]) -> String {
    let mut proxy = TcpStream::connect(address).await.unwrap();
    proxy.write_all(&[header, REQUEST].concat()).await.unwrap();
    let mut answer = String::new();
    soon(proxy.read_to_string(&mut answer)).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.into()
}

#[tokio::test]
async fn axum_serves_and_tells_who_the_client_is() {
    let listener = listen(options()).await;
    let address = listener.local_addr().unwrap();
    let app = Router::new().route(
        "/",
        get(|ConnectInfo(info): ConnectInfo<ClientInfo>| async move {
            let version = info.header.as_ref().map(|header| header.version());
            format!("{} by {} {version:?}", info.client, info.peer.ip().unwrap())
        }),
    );
    let service = app.into_make_service_with_connect_info::<ClientInfo>();
    let server = tokio::spawn(axum::serve(listener, service).into_future());
    assert_eq!(ask(address, V1).await, "192.0.2.1:12345 by 127.0.0.1 Some(V1)");
    assert!(ask(address, V2_LOCAL).await.starts_with("127.0.0.1:"));
    server.abort();
}

#[tokio::test]
async fn handlers_that_want_an_address_stay_as_they_are() {
    let listener = listen(options()).await;
    let address = listener.local_addr().unwrap();
    let who = |ConnectInfo(client): ConnectInfo<SocketAddr>| async move { client.to_string() };
    let app = Router::new().route("/", get(who));
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(axum::serve(listener.tap_io(|_| {}), service).into_future());
    assert_eq!(ask(address, V1).await, "192.0.2.1:12345");
    server.abort();
}

#[tokio::test]
async fn a_stream_of_connections_ends_with_the_listener() {
    let mut listener = listen(options().defer_accept(false)).await;
    let _first = peer(&listener, b"GET / HTTP/1.1\r\n\r\n").await;
    let _second = peer(&listener, V1).await;
    let (_stream, client) = soon(listener.next()).await.unwrap().unwrap();
    assert_eq!(client.to_string(), "192.0.2.1:12345");
    // A client that comes while it waits wakes it.
    let address = listener.local_addr().unwrap();
    let (accepted, mut late) = tokio::join!(soon(listener.next()), async {
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(&V1[..10]).await.unwrap();
        tokio::task::yield_now().await;
        late.write_all(&V1[10..]).await.unwrap();
        late
    });
    let (mut stream, _) = accepted.unwrap().unwrap();
    late.write_all(b"x").await.unwrap();
    assert_eq!(soon(stream.read_u8()).await.unwrap(), b'x');
    listener.drain().unwrap();
    assert!(soon(listener.next()).await.is_none());
}

#[test]
fn it_may_be_shared_and_sent() {
    fn shared<T: Send + Sync + Unpin + 'static>() {}
    fn stream<T: Stream + ?Sized>() {}
    shared::<ProxyListener>();
    shared::<proxyproto_acceptor::ProxiedStream>();
    stream::<Pin<Box<ProxyListener>>>();
}
