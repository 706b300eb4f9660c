//! Sessions that are kept, shown and forgotten.

use proxyproto_broker::{Acl, Forgotten};

use crate::client::{Login, broker};

fn kept(broker: &proxyproto_broker::Broker, version: u8) -> Login {
    Login { version, is_clean: false, session_expiry: 3600, ..Login::new(broker, "lamp") }
}

#[test]
fn a_kept_session_gets_what_came_while_it_was_away() {
    let broker = broker(Acl::default());
    let mut desk = Login::new(&broker, "desk").connect(&broker);
    for version in [4, 5] {
        let login = Login { client_id: format!("lamp-{version}"), ..kept(&broker, version) };
        let mut lamp = login.connect(&broker);
        assert!(!lamp.session_present);
        assert_eq!(lamp.subscribe("a/#"), 1);
        lamp.disconnect();
        for number in 0..50 {
            assert_eq!(desk.publish("a/b", &number.to_string(), false), 0);
        }
        let mut lamp = login.connect(&broker);
        assert!(lamp.session_present);
        for number in 0..50 {
            assert_eq!(lamp.message(), ("a/b".into(), number.to_string()));
        }
    }
}

#[test]
fn subscriptions_are_shown_while_the_client_is_there_and_while_it_is_away() {
    let broker = broker(Acl::default());
    assert_eq!(broker.subscriptions("lamp"), None);
    let mut lamp = kept(&broker, 5).connect(&broker);
    assert_eq!(broker.subscriptions("lamp"), Some(vec![]));
    for filter in ["b/+", "a/#", "$share/group/c"] {
        assert_eq!(lamp.subscribe(filter), 1);
    }
    let expected = [("$share/group/c", 1), ("a/#", 1), ("b/+", 1)];
    for is_there in [true, false] {
        let shown = broker.subscriptions("lamp").unwrap();
        let shown: Vec<_> = shown.iter().map(|shown| (&*shown.filter, shown.qos)).collect();
        assert_eq!(shown, expected, "{is_there}");
        if is_there {
            lamp.go_away();
        }
    }
    let stats = broker.stats();
    assert_eq!((stats.sessions, stats.subscriptions), (1, 3));
}

#[test]
fn a_session_is_forgotten_whether_the_client_is_there_or_away() {
    let broker = broker(Acl::default());
    assert_eq!(broker.forget("lamp"), Forgotten::Unknown);
    for is_there in [true, false] {
        let mut lamp = kept(&broker, 4).connect(&broker);
        assert!(!lamp.session_present, "{is_there}");
        assert_eq!(lamp.subscribe("a/#"), 1);
        if !is_there {
            lamp.go_away();
        }
        assert_eq!(broker.forget("lamp"), Forgotten::Gone);
        assert!(lamp.is_closed());
        assert_eq!(broker.subscriptions("lamp"), None);
    }
    assert_eq!(broker.stats().subscriptions, 0);
}

/// More than the buffers of the sockets hold, so that the broker is sending when the client goes without having read.
#[test]
fn a_message_that_was_being_sent_as_the_connection_broke_comes_again() {
    let broker = broker(Acl::default());
    let login = kept(&broker, 4);
    let mut lamp = login.connect(&broker);
    assert_eq!(lamp.subscribe("a"), 1);
    let large = |number: usize| format!("{number} {}", "x".repeat(900_000));
    let mut desk = Login::new(&broker, "desk").connect(&broker);
    for number in 0..MESSAGES {
        desk.publish("a", &large(number), false);
    }
    drop(lamp);
    let mut lamp = login.connect(&broker);
    assert!(lamp.session_present);
    let mut numbers: Vec<usize> =
        (0..MESSAGES).map(|_| lamp.message().1.split(' ').next().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..MESSAGES));
}

const MESSAGES: usize = 20;
