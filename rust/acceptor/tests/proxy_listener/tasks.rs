//! Tasks that accept: one that gives up, several at once, and others beside them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proxyproto_acceptor::{Outcome, ProxyListener};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};

use crate::pair::{V1, count, listen, options, peer, soon, until};

/// Starts `number` clients, each with its own port. Every third one sends its header in two parts.
fn clients(listener: &Arc<ProxyListener>, number: u16) -> JoinSet<tokio::net::TcpStream> {
    let mut clients = JoinSet::new();
    for port in 1..=number {
        let listener = Arc::clone(listener);
        clients.spawn(async move {
            let header = format!("PROXY TCP4 192.0.2.1 198.51.100.1 {port} 1883\r\n").into_bytes();
            let cut = if port % 3 == 0 { 20 } else { header.len() };
            let mut client = peer(&listener, &header[..cut]).await;
            yield_now().await;
            client.write_all(&header[cut..]).await.unwrap();
            client
        });
    }
    clients
}

#[tokio::test]
async fn an_accept_that_is_given_up_has_taken_nothing() {
    let listener = Arc::new(listen(options()).await);
    let clients = clients(&listener, 150);
    let mut ports = HashSet::new();
    soon(async {
        while ports.len() < 150 {
            tokio::select! {
                biased;
                accepted = listener.accept() => assert!(ports.insert(accepted.unwrap().1.port())),
                () = yield_now() => {}
            }
        }
    })
    .await;
    assert_eq!(count(&listener, Outcome::V1), 150);
    drop(clients);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_tasks_share_the_connections() {
    let listener = Arc::new(listen(options()).await);
    let clients = clients(&listener, 150);
    let (accepted, mut ports) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (listener, accepted) = (Arc::clone(&listener), accepted.clone());
        tasks.spawn(async move {
            loop {
                let (stream, client) = listener.accept().await.unwrap();
                accepted.send((stream, client)).unwrap();
            }
        });
    }
    let mut seen = HashSet::new();
    soon(async {
        while seen.len() < 150 {
            let (_, client): (_, SocketAddr) = ports.recv().await.unwrap();
            assert!(seen.insert(client.port()));
        }
    })
    .await;
    drop(clients);
}

#[tokio::test]
async fn whoever_waits_gets_what_another_leaves() {
    let listener = listen(options()).await;
    let mut late = [peer(&listener, &V1[..10]).await, peer(&listener, &V1[..10]).await];
    tokio::select! {
        accepted = listener.accept() => panic!("{accepted:?}"),
        () = until(&listener, |listener| listener.stats().unwrap().pending == 2) => {}
    }
    for late in &mut late {
        late.write_all(&V1[10..]).await.unwrap();
    }
    until(&listener, |listener| listener.stats().unwrap().ready == 2).await;
    // Each accepts once and never again.
    let (mut first, mut second) = (pin!(listener.accept()), pin!(listener.accept()));
    soon(&mut first).await.unwrap();
    soon(&mut second).await.unwrap();
}

#[tokio::test]
async fn refusals_on_one_listener_do_not_hold_up_another() {
    let flooded = Arc::new(listen(options().defer_accept(false)).await);
    let quiet = Arc::new(listen(options().defer_accept(false)).await);
    let mut strangers = Vec::new();
    for _ in 0..400 {
        strangers.push(peer(&flooded, b"GET / HTTP/1.1\r\n\r\n").await);
    }
    let _good = peer(&quiet, V1).await;
    let refusing = {
        let flooded = Arc::clone(&flooded);
        tokio::spawn(async move { flooded.accept().await.map(drop) })
    };
    let serving = {
        let (flooded, quiet) = (Arc::clone(&flooded), Arc::clone(&quiet));
        tokio::spawn(async move {
            quiet.accept().await.unwrap();
            count(&flooded, Outcome::MissingHeader)
        })
    };
    let refused_before = soon(serving).await.unwrap();
    assert!(refused_before < 64, "{refused_before} were refused first");
    until(&flooded, |flooded| count(flooded, Outcome::MissingHeader) == 400).await;
    refusing.abort();
}

#[tokio::test]
async fn nothing_happens_while_nobody_comes() {
    let told = Arc::new(AtomicUsize::new(0));
    let polls = Arc::new(AtomicUsize::new(0));
    let listener = {
        let told = Arc::clone(&told);
        let listener = listen(options()).await;
        Arc::new(listener.on_refused(move |_| {
            told.fetch_add(1, Ordering::Relaxed);
        }))
    };
    let accepting = {
        let (listener, polls) = (Arc::clone(&listener), Arc::clone(&polls));
        tokio::spawn(async move {
            let mut accept = pin!(listener.accept());
            std::future::poll_fn(|cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                accept.as_mut().poll(cx)
            })
            .await
            .map(drop)
        })
    };
    let _refused = peer(&listener, b"GET / HTTP/1.1\r\n\r\n").await;
    let _late = peer(&listener, b"PROXY").await;
    until(&listener, |listener| listener.stats().unwrap().pending == 1).await;
    soon(async {
        while told.load(Ordering::Relaxed) == 0 {
            yield_now().await;
        }
    })
    .await;
    let before = polls.load(Ordering::Relaxed);
    for _ in 0..20_000 {
        yield_now().await;
    }
    let after = polls.load(Ordering::Relaxed);
    assert!(after - before <= 3, "polled {} times for nothing", after - before);
    accepting.abort();
}
