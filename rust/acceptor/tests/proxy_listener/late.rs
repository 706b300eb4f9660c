//! Headers that come late, in pieces, or not at all.

use proxyproto_acceptor::{HeaderTimeout, Outcome};
use tokio::io::AsyncWriteExt;

use crate::pair::{
    V1, accept, count, listen, options, peer, peer_of, pending, read_all, until, until_closed,
};

#[tokio::test]
async fn who_is_late_keeps_nobody_waiting() {
    let listener = listen(options()).await;
    let mut late = peer(&listener, &V1[..10]).await;
    let _good = peer_of(&listener, "192.0.2.2").await;
    assert_eq!(accept(&listener).await.client_addr().ip().to_string(), "192.0.2.2");
    until(&listener, |listener| pending(listener) == 1).await;
    late.write_all(&V1[10..]).await.unwrap();
    late.write_all(b"payload").await.unwrap();
    drop(late);
    let stream = accept(&listener).await;
    assert_eq!(stream.client_addr().ip().to_string(), "192.0.2.1");
    assert_eq!(read_all(stream).await, b"payload");
}

#[tokio::test]
async fn a_header_may_come_in_two_parts() {
    let listener = listen(options()).await;
    for split in 1..V1.len() {
        let mut peer = peer(&listener, &V1[..split]).await;
        tokio::select! {
            accepted = listener.accept() => panic!("{accepted:?}"),
            () = until(&listener, |listener| pending(listener) == 1) => {}
        }
        peer.write_all(&V1[split..]).await.unwrap();
        peer.write_all(b"payload").await.unwrap();
        drop(peer);
        assert_eq!(read_all(accept(&listener).await).await, b"payload", "split at {split}");
    }
}

#[tokio::test]
async fn the_deadline_is_total_and_holds_while_nobody_accepts() {
    let header_timeout = HeaderTimeout::from_secs(0.3).unwrap();
    let listener = listen(options().header_timeout(header_timeout)).await;
    let silent = peer(&listener, b"P").await;
    let _good = peer(&listener, V1).await;
    // This also takes the silent connection from the kernel.
    accept(&listener).await;
    until_closed(silent).await;
    assert_eq!(count(&listener, Outcome::Timeout), 1);
}

#[tokio::test]
async fn a_whole_one_waits_for_who_accepts() {
    let listener = listen(options()).await;
    let mut late = peer(&listener, &V1[..10]).await;
    let _good = peer_of(&listener, "192.0.2.2").await;
    accept(&listener).await;
    late.write_all(&V1[10..]).await.unwrap();
    until(&listener, |listener| listener.stats().unwrap().ready == 1).await;
    assert_eq!(accept(&listener).await.client_addr().ip().to_string(), "192.0.2.1");
}

#[tokio::test]
async fn with_max_pending_the_longest_waiting_goes() {
    let listener = listen(options().max_pending(2)).await;
    let first = peer(&listener, b"P").await;
    let _second = peer(&listener, b"P").await;
    let _third = peer(&listener, b"P").await;
    let _good = peer(&listener, V1).await;
    accept(&listener).await;
    until_closed(first).await;
    assert_eq!((pending(&listener), count(&listener, Outcome::PendingOverflow)), (2, 1));
}
