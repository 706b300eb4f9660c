//! A taker that does not take: the number of ready connections is bounded, the others wait, and none is lost.

use std::net::TcpStream;

use proxyproto_acceptor::{HeaderTimeout, Outcome};

use crate::pair::{Served, V1, options, v1_of};

#[test]
fn a_full_queue_stops_accepting_and_goes_on_when_there_is_room() {
    let served = Served::with_backlog(options(), 2);
    let peers: Vec<TcpStream> = (1..=4).map(|host| served.peer(&v1_of(&format!("192.0.2.{host}")))).collect();
    served.until(|listener| (listener.stats().unwrap().ready == 2).then_some(()));
    for host in 1..=4 {
        let source = served.accept().header.unwrap().source().unwrap().socket_addr().unwrap().to_string();
        assert_eq!(source, format!("192.0.2.{host}:12345"));
    }
    drop(peers);
}

#[test]
fn a_header_that_completes_while_the_queue_is_full_keeps_its_place() {
    let header_timeout = HeaderTimeout::from_secs(0.5).unwrap();
    let served = Served::with_backlog(options().header_timeout(header_timeout), 1);
    let mut late = served.peer(&V1[..10]);
    served.until_pending(1);
    let _ready = served.peer(&v1_of("192.0.2.2"));
    served.until(|listener| (listener.stats().unwrap().ready == 1).then_some(()));
    std::io::Write::write_all(&mut late, &V1[10..]).unwrap();
    // It counts when its header is complete. Then it waits for the taker, even past its deadline.
    served.until_count(Outcome::V1, 2);
    let silent = served.peer(b"");
    drop(silent);
    assert_eq!(served.listener.stats().unwrap().pending, 1);
    served.accept();
    assert_eq!(served.accept().peer.to_string(), late.local_addr().unwrap().to_string());
    assert_eq!(served.count(Outcome::Timeout), 0);
}

#[test]
fn each_of_many_takers_gets_one() {
    let served = Served::new(options());
    std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| served.accept())).collect();
        let peers: Vec<TcpStream> = (0..4).map(|_| served.peer(V1)).collect();
        for taker in takers {
            taker.join().unwrap();
        }
        drop(peers);
    });
    assert_eq!(served.listener.stats().unwrap().open, 0);
}
