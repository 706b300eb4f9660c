//! How a listener begins and ends. Nothing is left behind.

use std::io::{Read, Write};
use std::net::TcpStream;

use proxyproto_acceptor::{
    BindOptions, Closed, Listener, OptionError, Options, Outcome, ProxyProtocol, Setting, Socket,
};

use crate::pair::{Served, V1, options, until_closed};

#[test]
fn close_closes_everything_and_wakes_who_waits() {
    let served = Served::new(options());
    let ready = served.peer(V1);
    served.until(|listener| (listener.stats().unwrap().ready == 1).then_some(()));
    let pending = served.peer(b"PROXY");
    served.until_pending(1);
    let taken = served.accept();
    let address = served.address;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| served.until(|listener| listener.take(1).err()));
        served.listener.close();
        assert_eq!(waiter.join().unwrap(), Closed::Closed);
    });
    until_closed(&pending);
    assert!(TcpStream::connect(address).is_err());
    served.listener.close();
    // A connection that was taken belongs to its taker.
    let mut kept = TcpStream::from(taken.fd);
    kept.write_all(b"x").unwrap();
    let mut ready = ready;
    assert_eq!(ready.read(&mut [0; 4]).unwrap(), 1);
}

#[test]
fn ready_connections_that_nobody_took_are_closed() {
    let served = Served::new(options());
    let peer = served.peer(V1);
    served.until(|listener| (listener.stats().unwrap().ready == 1).then_some(()));
    served.listener.close();
    until_closed(&peer);
    assert_eq!(served.listener.stats().unwrap().open, 0);
}

#[test]
fn listeners_come_and_go_with_their_thread() {
    for _ in 0..20 {
        let one = Served::new(options());
        let other = Served::new(options());
        drop(one);
        let _peer = other.peer(V1);
        other.accept();
    }
}

#[test]
fn counts_add_up_whatever_comes() {
    let served = Served::new(options());
    let bytes: [&[u8]; 4] = [V1, b"GET / HTTP/1.1\r\n", b"PROXY TCP9", b""];
    for round in 0..100 {
        drop(served.peer(bytes[round % bytes.len()]));
    }
    let sum =
        |listener: &Listener| listener.stats().unwrap().outcomes.iter().map(|(_, count)| count).sum::<u64>();
    served.until(|listener| {
        let _ = listener.take(usize::MAX);
        (sum(listener) == 100).then_some(())
    });
    assert_eq!(served.count(Outcome::MissingHeader), 25);
    assert_eq!(served.count(Outcome::Malformed), 25);
}

#[test]
fn options_that_cannot_be_meant_start_nothing() {
    let socket = || Socket::bind("127.0.0.1:0".parse().unwrap(), BindOptions::default()).unwrap();
    let optional = Options::default().proxy_protocol(ProxyProtocol::Optional);
    for (options, expected) in [
        (optional, OptionError::OptionalWithoutTrusted),
        (options().max_pending(0), OptionError::Zero { option: Setting::MaxPending }),
    ] {
        let error = Listener::start(socket(), options).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(error.downcast::<OptionError>().unwrap(), expected);
    }
}

#[test]
fn a_closed_listener_says_so() {
    let served = Served::new(options());
    served.listener.close();
    let error: Box<dyn std::error::Error> = served.until(|listener| listener.take(1).err()).into();
    assert_eq!(error.to_string(), "the listener is closed, or drained and empty");
}

#[test]
fn only_a_listening_stream_socket_can_be_adopted() {
    let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(Socket::adopt(datagram.into(), 16).is_err());
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(Socket::adopt(file.into(), 16).is_err());
}
