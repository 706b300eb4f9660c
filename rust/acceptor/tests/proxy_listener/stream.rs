//! Reading and writing a stream: the first bytes without the runtime, later ones with it.

use std::io::IoSlice;

use proxyproto_acceptor::{InnerStream, ProxiedStream, ProxyListener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::pair::{V1, accept, listen, options, peer, soon};

/// A stream whose peer has sent a header and `payload`.
async fn connection(payload: &[u8]) -> (ProxyListener, ProxiedStream, TcpStream) {
    let listener = listen(options()).await;
    let peer = peer(&listener, &[V1, payload].concat()).await;
    let stream = accept(&listener).await;
    (listener, stream, peer)
}

#[tokio::test]
async fn reads_go_on_from_what_was_there_to_what_comes() {
    for payload in [b"".as_slice(), b"ab", b"abcd", b"abcdefgh"] {
        let (_listener, mut stream, mut peer) = connection(payload).await;
        let mut read: Vec<u8> = Vec::new();
        let mut buffer = [0; 4];
        while read.len() < payload.len() {
            let count = soon(stream.read(&mut buffer)).await.unwrap();
            assert!(count > 0);
            read.extend(&buffer[..count]);
        }
        assert_eq!(read, payload);
        for round in 0..3 {
            let (count, ()) = tokio::join!(soon(stream.read(&mut buffer)), async {
                tokio::task::yield_now().await;
                peer.write_all(b"wxyz").await.unwrap();
            });
            assert_eq!(&buffer[..count.unwrap()], b"wxyz", "round {round}");
        }
        peer.shutdown().await.unwrap();
        assert_eq!(soon(stream.read(&mut buffer)).await.unwrap(), 0);
        assert_eq!(soon(stream.read(&mut buffer)).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_read_into_no_room_is_no_end() {
    let (_listener, mut stream, _peer) = connection(b"ab").await;
    assert_eq!(soon(stream.read(&mut [])).await.unwrap(), 0);
    let mut buffer = [0; 2];
    soon(stream.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"ab");
}

#[tokio::test]
async fn the_end_may_be_there_with_the_payload() {
    let (_listener, mut stream, peer) = connection(b"ab").await;
    drop(peer);
    let mut read = Vec::new();
    soon(stream.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"ab");
}

#[tokio::test]
async fn more_is_written_than_the_kernel_holds() {
    let sent: Vec<u8> = (0..8 << 20).map(|number: u32| number.to_le_bytes()[0]).collect();
    for payload in [b"".as_slice(), b"x"] {
        let (_listener, mut stream, mut peer) = connection(payload).await;
        let mut received = Vec::new();
        let (written, read) = tokio::join!(
            soon(async {
                stream.write_all(&sent).await?;
                stream.shutdown().await
            }),
            soon(peer.read_to_end(&mut received))
        );
        written.unwrap();
        read.unwrap();
        assert!(received == sent);
    }
}

#[tokio::test]
async fn several_buffers_are_written_at_once() {
    let (_listener, mut stream, mut peer) = connection(b"x").await;
    let count = soon(stream.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")])).await.unwrap();
    assert_eq!(count, 4);
    let mut buffer = [0; 4];
    soon(peer.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"abcd");
}

#[tokio::test]
async fn a_reset_is_an_error() {
    let (_listener, mut stream, peer) = connection(b"").await;
    peer.set_zero_linger().unwrap();
    drop(peer);
    assert!(soon(stream.read(&mut [0; 4])).await.is_err());
    assert!(soon(stream.write_all(b"x")).await.is_err());
    soon(stream.shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_is_left_is_read_by_tokios_own_stream() {
    for watched in [false, true] {
        let (_listener, mut stream, mut peer) = connection(b"ab").await;
        if watched {
            soon(stream.read_exact(&mut [0; 2])).await.unwrap();
            let mut buffer = [0];
            tokio::select! {
                biased;
                read = stream.read(&mut buffer) => panic!("{read:?}"),
                () = std::future::ready(()) => {}
            }
            peer.write_all(b"ab").await.unwrap();
        }
        let InnerStream::Tcp(mut stream) = stream.into_inner().unwrap() else { panic!("a TCP stream") };
        let mut buffer = [0; 2];
        soon(stream.read_exact(&mut buffer)).await.unwrap();
        assert_eq!(&buffer, b"ab");
    }
}

#[tokio::test]
async fn both_halves_are_used_at_once() {
    let (_listener, stream, mut peer) = connection(b"x").await;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let echo = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut writing).await });
    for number in 0..100_u8 {
        peer.write_all(&[number]).await.unwrap();
    }
    peer.shutdown().await.unwrap();
    let mut received = Vec::new();
    soon(peer.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, [vec![b'x'], (0..100).collect()].concat());
    assert_eq!(soon(echo).await.unwrap().unwrap(), 101);
}

#[tokio::test]
async fn a_busy_connection_lets_others_have_their_turn() {
    let listener = listen(options()).await;
    let payload = vec![b'x'; 1000];
    let _peer = peer(&listener, &[V1, &payload].concat()).await;
    let mut stream = accept(&listener).await;
    let turns = std::cell::Cell::new(0);
    let reading = async {
        for _ in 0..payload.len() {
            stream.read_exact(&mut [0]).await.unwrap();
        }
        turns.get()
    };
    let other = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        turns = reading => assert!(turns > 0, "1000 reads in one turn"),
        () = other => {}
    }
}
