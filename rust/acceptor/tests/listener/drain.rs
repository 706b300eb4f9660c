//! Draining: no more connections are accepted, and none that was accepted is lost.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use proxyproto_acceptor::{Closed, Listener, Socket};

use crate::pair::{Served, V1, finish, options, read_all, v1_of};

fn until_drained(served: &Served) {
    served.until(|listener| (listener.take(1).err() == Some(Closed::Closed)).then_some(()));
}

#[test]
fn what_is_ready_or_has_begun_is_still_handed_over() {
    let served = Served::new(options());
    let ready = served.peer(&v1_of("192.0.2.1"));
    served.until(|listener| (listener.stats().unwrap().ready == 1).then_some(()));
    let mut late = served.peer(&V1[..10]);
    served.until_pending(1);
    served.listener.drain().unwrap();
    late.write_all(&V1[10..]).unwrap();
    late.write_all(b"payload").unwrap();
    finish(&late);
    finish(&ready);
    assert_eq!(read_all(served.accept()), b"");
    assert_eq!(read_all(served.accept()), b"payload");
    until_drained(&served);
}

#[test]
fn nobody_can_connect_any_more() {
    let served = Served::new(options());
    let late = served.peer(&V1[..10]);
    served.until_pending(1);
    served.listener.drain().unwrap();
    // The late one keeps the listener open, but not its port. Another test may have the port by now, so a connection that
    // succeeds or waits says nothing.
    served.until(|_| {
        let error = TcpStream::connect_timeout(&served.address, Duration::from_millis(500)).err()?;
        (error.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
    drop(late);
    until_drained(&served);
}

#[test]
fn the_kernels_queue_is_emptied_before_the_end() {
    let served = Served::with_backlog(options(), 1);
    // One connection is ready. With a backlog of one, two may wait in the kernel.
    let peers: Vec<TcpStream> = (1..=3).map(|host| served.peer(&v1_of(&format!("192.0.2.{host}")))).collect();
    served.until(|listener| (listener.stats().unwrap().ready == 1).then_some(()));
    served.listener.drain().unwrap();
    for _ in &peers {
        served.accept();
    }
    until_drained(&served);
}

#[test]
fn who_has_connected_before_the_drain_is_served_however_close() {
    let not_deferred = options().defer_accept(false);
    for _ in 0..500 {
        let served = Served::new(not_deferred.clone());
        // The thread is busy with the first when the second comes, and the drain follows at once.
        let first = served.peer(V1);
        let second = served.peer(V1);
        served.listener.drain().unwrap();
        for _ in [first, second] {
            served.accept();
        }
    }
}

#[test]
fn an_adopted_socket_is_left_to_its_other_holders() {
    let shared = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let first = Served::of(Socket::adopt(shared.try_clone().unwrap().into(), 16).unwrap(), options());
    let second = Served::of(Socket::adopt(shared.into(), 16).unwrap(), options());
    first.listener.close();
    let _before = second.peer(V1);
    second.accept();
    let third = second.listener.listening().unwrap();
    second.listener.drain().unwrap();
    until_drained(&second);
    let heir = Listener::start(Socket::adopt(third, 16).unwrap(), options()).unwrap();
    let heir = Served { listener: heir, address: second.address };
    let _after = heir.peer(V1);
    heir.accept();
}

#[test]
fn a_successor_at_the_same_path_keeps_its_file() {
    let path = std::env::temp_dir().join(format!("proxyproto-successor-{}", std::process::id()));
    let listen = || Listener::start(Socket::bind_unix(&path, 16, None).unwrap(), options()).unwrap();
    let old = listen();
    let mut late = UnixStream::connect(&path).unwrap();
    late.write_all(&V1[..10]).unwrap();
    while old.stats().unwrap().pending == 0 {
        std::thread::yield_now();
    }
    old.drain().unwrap();
    while UnixStream::connect(&path).is_ok() {
        std::thread::yield_now();
    }
    let new = listen();
    drop(late);
    old.close();
    UnixStream::connect(&path).unwrap();
    new.close();
    assert!(!path.exists());
}
