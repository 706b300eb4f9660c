//! The end of a listener, and of the streams that it returned.

use std::io::ErrorKind;

use proxyproto_acceptor::{Closed, InnerStream, Outcome};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::pair::{V1, accept, count, listen, options, peer, peer_of, pending, soon, until, until_closed};

#[tokio::test]
async fn who_has_connected_before_the_drain_is_accepted() {
    let listener = listen(options().defer_accept(false)).await;
    let _connected = peer(&listener, V1).await;
    listener.drain().unwrap();
    accept(&listener).await;
    let error = soon(listener.accept()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    assert_eq!(error.downcast::<Closed>().unwrap(), Closed::Closed);
    assert!(TcpStream::connect(listener.local_addr().unwrap()).await.is_err());
    assert!(soon(listener.accept()).await.is_err());
}

#[tokio::test]
async fn a_drain_wakes_who_waits() {
    let listener = listen(options().defer_accept(false)).await;
    let (ended, ()) = tokio::join!(soon(listener.accept()), async { listener.drain().unwrap() });
    assert!(ended.is_err());
}

#[tokio::test]
async fn a_dropped_listener_closes_all_that_it_holds() {
    let listener = listen(options()).await;
    let late = peer(&listener, b"PROXY").await;
    tokio::select! {
        accepted = listener.accept() => panic!("{accepted:?}"),
        () = until(&listener, |listener| pending(listener) == 1) => {}
    }
    let _served = peer(&listener, V1).await;
    let served = accept(&listener).await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    until_closed(late).await;
    assert!(TcpStream::connect(address).await.is_err());
    served.set_nodelay(true).unwrap();
}

#[tokio::test]
async fn a_place_is_given_back_when_the_stream_is_dropped() {
    let listener = listen(options().max_connections(1)).await;
    let first = peer(&listener, V1).await;
    let stream = accept(&listener).await;
    let parts = stream.into_parts().unwrap();
    let refused = peer_of(&listener, "192.0.2.2").await;
    tokio::select! {
        accepted = listener.accept() => panic!("{accepted:?}"),
        () = until_closed(refused) => {}
    }
    assert_eq!(count(&listener, Outcome::TooMany), 1);
    drop(parts.permit);
    let _second = peer_of(&listener, "192.0.2.3").await;
    accept(&listener).await;
    let InnerStream::Tcp(mut stream) = parts.stream else { panic!("{:?}", parts.stream) };
    assert_eq!(parts.header.unwrap().raw(), V1);
    drop(first);
    assert_eq!(soon(stream.read(&mut [0; 1])).await.unwrap(), 0);
}
