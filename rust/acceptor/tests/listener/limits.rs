//! Rules and limits on the client that the header names.

use proxyproto_acceptor::{ClientLimits, Options, Outcome, PerClient, Rate};

use crate::pair::{Served, V2_LOCAL, networks, options, until_closed, v1_of};

fn per_client(limits: PerClient) -> Options {
    options().client_limits(ClientLimits::new(limits))
}

#[test]
fn a_denied_client_is_refused_by_its_own_address() {
    let served = Served::new(options().deny(networks(&["192.0.2.0/24"])));
    until_closed(&served.peer(&v1_of("192.0.2.7")));
    let refusal = served.refusal();
    assert_eq!(
        (refusal.outcome, refusal.client.unwrap().to_string()),
        (Outcome::Denied, "192.0.2.7:12345".into())
    );
    served.peer(&v1_of("203.0.113.7"));
    served.accept();
}

#[test]
fn a_change_of_a_shared_set_is_seen_at_once() {
    let deny = networks(&[]);
    let served = Served::new(options().deny(deny.clone()));
    let _open = served.peer(&v1_of("192.0.2.7"));
    served.accept();
    deny.add("192.0.2.7".parse().unwrap(), None);
    until_closed(&served.peer(&v1_of("192.0.2.7")));
}

#[test]
fn a_place_is_given_back_when_the_permit_is_dropped() {
    let served = Served::new(per_client(PerClient::default().max_connections(1)));
    let _first = served.peer(&v1_of("192.0.2.7"));
    let connection = served.accept();
    until_closed(&served.peer(&v1_of("192.0.2.7")));
    assert_eq!(served.count(Outcome::TooManyFromClient), 1);
    let _other = served.peer(&v1_of("192.0.2.8"));
    let _held = served.accept();
    drop(connection);
    let _again = served.peer(&v1_of("192.0.2.7"));
    served.accept();
}

#[test]
fn a_client_is_counted_over_listeners_that_share_its_limits() {
    let shared = per_client(PerClient::default().max_connections(1));
    let one = Served::new(shared.clone());
    let other = Served::new(shared);
    let _open = one.peer(&v1_of("192.0.2.7"));
    let _held = one.accept();
    until_closed(&other.peer(&v1_of("192.0.2.7")));
    assert_eq!(other.count(Outcome::TooManyFromClient), 1);
}

#[test]
fn a_fast_client_is_refused_and_others_are_not() {
    let rate = Rate::new(0.001, Some(2)).unwrap();
    let served = Served::new(per_client(PerClient::default().rate(rate)));
    let _peers: Vec<_> = (0..2).map(|_| served.peer(&v1_of("192.0.2.7"))).collect();
    served.accept();
    served.accept();
    until_closed(&served.peer(&v1_of("192.0.2.7")));
    assert_eq!(served.count(Outcome::RateLimited), 1);
    let _other = served.peer(&v1_of("192.0.2.8"));
    served.accept();
}

#[test]
fn the_listener_itself_is_full_but_not_for_health_checks() {
    let served = Served::new(options().max_connections(1));
    let _open = served.peer(&v1_of("192.0.2.7"));
    let _held = served.accept();
    until_closed(&served.peer(&v1_of("192.0.2.8")));
    assert_eq!(served.count(Outcome::TooMany), 1);
    let _check = served.peer(V2_LOCAL);
    served.accept();
}
