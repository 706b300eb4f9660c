//! Other processes do not reach the broker. Whoever reaches it without the secret gets nowhere, and holds up nobody.

use std::io::{Read, Write};
use std::net::TcpStream;

use proxyproto_broker::Acl;

use crate::client::{Client, Login, broker, password};

#[test]
fn another_process_does_not_reach_it_even_with_the_secret() {
    let broker = broker(Acl::default());
    let login = Login::new(&broker, "mallory");
    for count in 1..=3 {
        let mut stranger = TcpStream::connect(broker.address()).unwrap();
        // It may be closed by now.
        let _ = stranger.write_all(&login.packet());
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert_eq!(answer, b"");
        assert_eq!(broker.stats().strangers, count);
    }
    assert_eq!(broker.subscriptions("mallory"), None);
}

#[test]
fn a_connect_without_the_secret_is_refused_and_counted() {
    let broker = broker(Acl::default());
    let other = crate::client::broker(Acl::default());
    let passwords = [
        Vec::new(),
        b"guess".to_vec(),
        password(other.secret(), "192.0.2.7:1"),
        broker.secret().as_bytes().to_vec(),
        broker.secret().as_bytes()[1..].to_vec(),
    ];
    for (version, code) in [(4, 5), (5, 0x87)] {
        for password in &passwords {
            let login = Login { version, password: password.clone(), ..Login::new(&broker, "mallory") };
            let (mut client, answer) = login.try_connect(&broker);
            assert_eq!(answer, code, "{password:?}");
            assert!(client.is_closed());
        }
    }
    assert_eq!(broker.stats().strangers, 2 * passwords.len() as u64);
    assert_eq!(broker.subscriptions("mallory"), None);
}

#[test]
fn a_stranger_with_the_id_of_a_session_does_not_take_it_over() {
    let broker = broker(Acl::default());
    let mut lamp = Login::new(&broker, "lamp").connect(&broker);
    let stranger = Login { password: b"guess".to_vec(), ..Login::new(&broker, "lamp") };
    assert_eq!(stranger.try_connect(&broker).1, 5);
    lamp.ping();
}

#[test]
fn silent_and_senseless_connections_hold_up_nobody() {
    let broker = broker(Acl::default());
    let mut strangers = Vec::new();
    for bytes in [
        &b""[..],
        b"PROXY",
        b"PROXY UNKNOWN\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x10],
        &[0x10, 0xff, 0xff, 0xff, 0xff],
    ] {
        for _ in 0..20 {
            let mut stranger = Client::open(&broker, 4);
            stranger.send(bytes);
            strangers.push(stranger);
        }
        // With a header in front of the CONNECT, each of them would cost a second or five.
        Login::new(&broker, "lamp").connect(&broker).ping();
    }
}

#[test]
fn before_the_login_nothing_else_is_taken() {
    let broker = broker(Acl::default());
    let mut lamp = Login::new(&broker, "lamp").connect(&broker);
    assert_eq!(lamp.subscribe("#"), 1);
    let mut stranger = Client::open(&broker, 4);
    stranger.send(&[0x30, 5, 0, 1, b'a', b'h', b'i']);
    assert!(stranger.is_closed());
    assert_eq!(lamp.publish("b", "own", false), 0);
    assert_eq!(lamp.message(), ("b".into(), "own".into()));
}
