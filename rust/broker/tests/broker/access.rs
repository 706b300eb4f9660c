//! The rules, as clients meet them.

use proxyproto_broker::{Acl, Action, Rule};

use crate::client::{Login, broker, password};

fn rule(allow: bool, topics: &[&str]) -> Rule {
    Rule { topics: topics.iter().map(|topic| topic.parse().unwrap()).collect(), ..Rule::new(allow) }
}

fn own_topics() -> Acl {
    Acl::new(vec![rule(true, &["dev/%c/#", "user/%u/#"])])
}

#[test]
fn denied_topics_are_answered_and_told() {
    let broker = broker(own_topics());
    for (version, denied_publish, denied_subscribe) in [(4, 0, 0x80), (5, 0x87, 0x87)] {
        let mut lamp = Login { version, ..Login::new(&broker, "lamp") }.connect(&broker);
        assert_eq!(lamp.subscribe("dev/lamp/#"), 1);
        assert_eq!(lamp.subscribe("dev/+/on"), denied_subscribe);
        assert_eq!(lamp.subscribe("#"), denied_subscribe);
        assert_eq!(lamp.publish("dev/desk/on", "1", false), denied_publish);
        assert_eq!(lamp.publish("user/anna/on", "1", false), 0);
        assert_eq!(lamp.publish("dev/lamp/on", "1", false), 0);
        assert_eq!(lamp.message(), ("dev/lamp/on".into(), "1".into()));
        let mut denied: Vec<_> = broker.take_denials().counted;
        denied.sort_by(|(one, _), (other, _)| one.topic.cmp(&other.topic));
        let denied: Vec<_> = denied
            .iter()
            .map(|(denied, count)| (&*denied.client_id, denied.action, &*denied.topic, *count))
            .collect();
        let expected = [
            ("lamp", Action::Subscribe, "#", 1),
            ("lamp", Action::Subscribe, "dev/+/on", 1),
            ("lamp", Action::Publish, "dev/desk/on", 1),
        ];
        assert_eq!(denied, expected);
    }
}

#[test]
fn the_network_of_the_real_client_counts() {
    let networks = Some(vec!["192.0.2.0/24".parse().unwrap()]);
    let broker = broker(Acl::new(vec![Rule { networks, ..rule(true, &["a/#"]) }]));
    for (source, expected) in [("192.0.2.7:1", 0), ("198.51.100.7:1", 0x87), ("[::ffff:192.0.2.8]:1", 0)] {
        let password = password(broker.secret(), source);
        let mut client = Login { password, ..Login::v5(&broker, "c") }.connect(&broker);
        assert_eq!(client.publish("a/b", "1", false), expected, "{source}");
    }
}

#[test]
fn new_rules_hold_for_sessions_that_are_there() {
    let broker = broker(own_topics());
    let mut lamp = Login::v5(&broker, "lamp").connect(&broker);
    assert_eq!(lamp.publish("news", "1", false), 0x87);
    broker.set_acl(Acl::new(vec![rule(true, &["news"])]));
    assert_eq!(lamp.publish("news", "1", false), 0);
    assert_eq!(lamp.publish("dev/lamp/on", "1", false), 0x87);
}

#[test]
fn a_will_needs_the_right_too() {
    let broker = broker(own_topics());
    let mut watcher = Login::new(&broker, "watcher").connect(&broker);
    broker.set_acl(Acl::new(vec![
        rule(true, &["dev/%c/#"]),
        Rule { clients: Some(["watcher".into()].into()), ..Rule::new(true) },
    ]));
    for filter in ["#", "$denied", "$denied/#"] {
        let expected = if filter == "#" { 1 } else { 0x80 };
        assert_eq!(watcher.subscribe(filter), expected, "{filter}");
    }
    for topic in ["dev/desk/gone", "$SYS/broker/connection/x/state", &"a/".repeat(30_000), "dev/lamp/gone"] {
        let will = Some((topic.to_owned(), "gone".to_owned()));
        let mut lamp = Login { will, ..Login::new(&broker, "lamp") }.connect(&broker);
        lamp.ping();
    }
    assert_eq!(watcher.message(), ("dev/lamp/gone".into(), "gone".into()));
    let denied = broker.take_denials().counted;
    assert_eq!(denied.iter().filter(|(denied, _)| denied.action == Action::Publish).count(), 3, "{denied:?}");
}

#[test]
fn nobody_publishes_what_is_the_brokers() {
    let broker = broker(Acl::default());
    let mut lamp = Login::v5(&broker, "lamp").connect(&broker);
    assert_eq!(lamp.publish("$SYS/brokers/1/version", "9", true), 0x87);
    assert_eq!(lamp.subscribe("$SYS/#"), 1);
    lamp.ping();
}

#[test]
fn a_topic_of_many_levels_costs_a_refusal_and_not_the_process() {
    let broker = broker(Acl::default());
    let deep = "/".repeat(60_000);
    let mut lamp = Login::v5(&broker, "lamp").connect(&broker);
    assert_eq!(lamp.publish(&deep, "1", true), 0x87);
    assert_ne!(lamp.subscribe(&deep), 1);
    assert_eq!(lamp.publish(&"a/".repeat(127), "1", true), 0);
    lamp.ping();
}
