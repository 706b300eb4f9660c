//! Messages that are retained or shared, and limits.

use std::collections::BTreeMap;
use std::time::Duration;

use proxyproto_broker::{Acl, Broker, Rule};

use crate::client::{Client, Login, broker, options};

fn retained(client: &mut Client, filter: &str, expected: &[(&str, &str)]) {
    assert_eq!(client.subscribe(filter), 1);
    let mut messages: Vec<_> = expected.iter().map(|_| client.message()).collect();
    messages.sort();
    let messages: Vec<_> = messages.iter().map(|(topic, payload)| (&**topic, &**payload)).collect();
    assert_eq!(messages, expected);
    client.ping();
}

#[test]
fn retained_messages_are_bounded_and_those_that_are_there_can_be_changed() {
    let mut options = options();
    options.max_retained = Some(2);
    let broker = Broker::start(options, Acl::default()).unwrap();
    let mut lamp = Login::new(&broker, "lamp").connect(&broker);
    for (topic, payload) in [("a", "1"), ("b", "1"), ("c", "1"), ("a", "2")] {
        lamp.publish(topic, payload, true);
    }
    assert_eq!((broker.stats().retained, broker.stats().not_retained), (2, 1));
    retained(&mut Login::new(&broker, "one").connect(&broker), "#", &[("a", "2"), ("b", "1")]);
    lamp.publish("b", "", true);
    lamp.publish("c", "3", true);
    retained(&mut Login::new(&broker, "two").connect(&broker), "+", &[("a", "2"), ("c", "3")]);
}

#[test]
fn a_group_shares_its_messages_evenly() {
    let broker = broker(Acl::default());
    let mut members: Vec<_> =
        ["one", "two"].iter().map(|id| Login::new(&broker, id).connect(&broker)).collect();
    for member in &mut members {
        assert_eq!(member.subscribe("$share/group/a/#"), 1);
    }
    let mut lamp = Login::new(&broker, "lamp").connect(&broker);
    for number in 0..10 {
        lamp.publish("a/b", &number.to_string(), false);
    }
    let mut seen: Vec<_> = members
        .iter_mut()
        .flat_map(|member| (0..5).map(|_| member.message().1).collect::<Vec<_>>())
        .collect();
    seen.sort();
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    for member in &mut members {
        member.ping();
    }
}

#[test]
fn shared_subscriptions_can_be_switched_off() {
    let mut options = options();
    options.shared_subscriptions = false;
    let broker = Broker::start(options, Acl::default()).unwrap();
    let mut lamp = Login::v5(&broker, "lamp").connect(&broker);
    assert!(lamp.subscribe("$share/group/a") >= 0x80);
}

#[test]
fn the_broker_tells_of_itself_and_its_rules_say_to_whom() {
    let mut options = options();
    options.sys_interval = Some(Duration::from_millis(20));
    options.max_retained = Some(1);
    let mut denied = Rule::new(false);
    denied.topics = vec!["$SYS/#".parse().unwrap()];
    denied.users = Some(["bert".into()].into());
    let broker = Broker::start(options, Acl::new(vec![denied, Rule::new(true)])).unwrap();
    let mut bert = Login { username: "bert".into(), ..Login::v5(&broker, "bert") }.connect(&broker);
    assert_eq!(bert.subscribe("$SYS/#"), 0x87);
    assert_eq!(bert.publish("a", "12345", true), 0);
    let mut anna = Login::v5(&broker, "anna").connect(&broker);
    assert_eq!(anna.publish("$SYS/broker/version", "1", true), 0x87);
    assert_eq!(anna.subscribe("$SYS/broker/#"), 1);
    let mut told = BTreeMap::new();
    while told.get("$SYS/broker/clients/maximum").is_none_or(|most| most != "2") || told.len() < 13 {
        told.extend([anna.message()]);
    }
    for (topic, expected) in [
        ("clients/connected", "2"),
        ("clients/total", "2"),
        ("subscriptions/count", "1"),
        ("retained messages/count", "1"),
        ("publish/messages/received", "2"), // The denied one has come, too.
        ("publish/bytes/received", "6"),
    ] {
        while told[&format!("$SYS/broker/{topic}")] != expected {
            told.extend([anna.message()]);
        }
    }
    assert!(told["$SYS/broker/version"].starts_with("proxyproto_rs "));
    assert!(told["$SYS/broker/uptime"].ends_with(" seconds"));
}
