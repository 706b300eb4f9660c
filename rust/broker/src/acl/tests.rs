use std::collections::HashSet;

use super::Action::{Publish, Subscribe};
use super::*;

fn rule(allow: bool, topics: &[&str]) -> Rule {
    Rule { topics: topics.iter().map(|topic| topic.parse().unwrap()).collect(), ..Rule::new(allow) }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a rule has")]
fn names(names: &[&str]) -> Option<HashSet<String>> {
    Some(names.iter().map(ToString::to_string).collect())
}

fn subject(client_id: &'static str, username: Option<&'static str>, address: &str) -> Subject<'static> {
    Subject { client_id, username, address: address.parse().unwrap() }
}

fn lamp() -> Subject<'static> {
    subject("lamp", Some("anna"), "192.0.2.7")
}

#[test]
fn without_rules_everything_is_allowed_and_with_some_the_rest_is_denied() {
    assert!(Acl::default().allows(&lamp(), Publish, "$SYS/a"));
    let acl = Acl::new(vec![rule(true, &["a"])]);
    assert!(!acl.allows(&lamp(), Publish, "b"));
    assert!(!acl.allows(&lamp(), Subscribe, "b"));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let acl = Acl::new(vec![rule(true, &["a/b"]), rule(false, &["a/+"]), rule(true, &["#"])]);
    for (topic, expected) in [("a/b", true), ("a/c", false), ("a/c/d", true), ("b", true), ("a", true)] {
        assert_eq!(acl.allows(&lamp(), Publish, topic), expected, "{topic}");
    }
}

/// (pattern, topic, whether a PUBLISH to the topic matches)
const PUBLISHES: &[(&str, &str, bool)] = &[
    ("a/b", "a/b", true),
    ("a/b", "a/b/", false),
    ("a/b", "/a/b", false),
    ("a/+", "a/", true),
    ("a/+", "a", false),
    ("a/#", "a", true),
    ("a/#", "a/b/c", true),
    ("a/#", "ab", false),
    ("+/b", "a/b", true),
    ("+/b", "$SYS/b", false),
    ("#", "$SYS/b", false),
    ("+/#", "$SYS/b", false),
    ("$SYS/#", "$SYS/b", true),
    ("a/+/#", "a/$b/c", true),
    ("/#", "/a", true),
    ("/+", "/", true),
    ("dev/%c/#", "dev/lamp/on", true),
    ("dev/%c/#", "dev/lamp", true),
    ("dev/%c/#", "dev/lamp2/on", false),
    ("dev/%c/#", "dev/%c/on", false),
    ("dev/%u/#", "dev/anna/on", true),
    ("dev/%u-%c", "dev/anna-lamp", true),
    ("dev/%u-%c", "dev/anna-", false),
    ("dev/x%c", "dev/xlamp", true),
    ("dev/x%c", "dev/lamp", false),
    ("100%%", "100%", true),
    ("%c", "lamp", true),
];

#[test]
fn which_topics_a_pattern_matches() {
    for (pattern, topic, expected) in PUBLISHES {
        for allow in [true, false] {
            let acl = Acl::new(vec![rule(allow, &[pattern]), Rule::new(!allow)]);
            assert_eq!(acl.allows(&lamp(), Publish, topic) == allow, *expected, "{pattern} {topic}");
            // A filter without wildcards is a topic.
            assert_eq!(acl.allows(&lamp(), Subscribe, topic) == allow, *expected, "{pattern} {topic}");
        }
    }
}

/// (pattern, filter, whether the pattern has all its topics, whether they have one in common)
const SUBSCRIBES: &[(&str, &str, bool, bool)] = &[
    ("a/#", "a/#", true, true),
    ("a/#", "a/+/b", true, true),
    ("a/#", "#", false, true),
    ("a/#", "+/b", false, true),
    ("a/#", "b/#", false, false),
    ("a/+", "a/#", false, true),
    ("a/+", "a/+", true, true),
    ("a/+", "+/+", false, true),
    ("a/+", "+/+/+", false, false),
    ("a/b", "a/b/#", false, true),
    ("a/b", "a/b/+", false, false),
    ("a/b", "+/+", false, true),
    ("#", "#", true, true),
    ("#", "+/a", true, true),
    ("#", "$SYS/#", false, false),
    ("+/#", "$SYS/#", false, false),
    ("$SYS/#", "#", false, false),
    ("$SYS/#", "+/a", false, false),
    ("$SYS/#", "$SYS/a/#", true, true),
    ("dev/%c/#", "dev/lamp/#", true, true),
    ("dev/%c/#", "dev/+/state", false, true),
    ("dev/%c/#", "dev/#", false, true),
    ("dev/%c/#", "#", false, true),
    ("dev/%c/#", "dev/desk/#", false, false),
    ("dev/%c", "dev/+", false, true),
];

#[test]
fn a_rule_that_allows_needs_the_whole_filter_and_one_that_denies_a_part_of_it() {
    for (pattern, filter, covers, overlaps) in SUBSCRIBES {
        let allows = Acl::new(vec![rule(true, &[pattern])]);
        assert_eq!(allows.allows(&lamp(), Subscribe, filter), *covers, "{pattern} covers {filter}");
        let denies = Acl::new(vec![rule(false, &[pattern]), Rule::new(true)]);
        assert_eq!(!denies.allows(&lamp(), Subscribe, filter), *overlaps, "{pattern} overlaps {filter}");
    }
}

#[test]
fn nobody_breaks_out_of_a_placeholder() {
    let acl = Acl::new(vec![rule(true, &["dev/%c/#", "user/%u/#", "%c/#", "x%c/y"])]);
    for name in ["+", "#", "a/b", "a/#", "", "a\0b", "lamp/+", "..+", "$SYS", "$SYS/x"] {
        for (client_id, username) in [(name, None), ("z", Some(name))] {
            let subject = Subject { client_id, username, ..lamp() };
            let topics =
                ["dev/lamp/on", "dev/a/b", "dev/a", "user/a/b", "a/b", "$SYS/x", "lamp/on", "dev//on", "x/y"];
            for topic in topics {
                assert!(!acl.allows(&subject, Publish, topic), "{name:?} publishes to {topic}");
                assert!(!acl.allows(&subject, Subscribe, topic), "{name:?} subscribes to {topic}");
            }
            for filter in
                ["dev/+/#", "dev/#/#", "#", "+/#", "user/+/#", "dev/a/b/#", "user/a/b", "$SYS/#", "dev//#"]
            {
                assert!(!acl.allows(&subject, Subscribe, filter), "{name:?} subscribes to {filter}");
            }
        }
    }
    let nobody = subject("z", None, "192.0.2.7");
    assert!(!acl.allows(&nobody, Publish, "user/anna/on"));
}

#[test]
fn whom_a_rule_is_for() {
    let networks = |texts: &[&str]| Some(texts.iter().map(|text| text.parse().unwrap()).collect());
    let rules: &[(Rule, Subject<'_>, bool)] = &[
        (Rule { users: names(&["anna"]), ..Rule::new(true) }, lamp(), true),
        (Rule { users: names(&["bert"]), ..Rule::new(true) }, lamp(), false),
        (Rule { users: names(&["anna"]), ..Rule::new(true) }, subject("lamp", None, "::1"), false),
        (Rule { clients: names(&["lamp", "desk"]), ..Rule::new(true) }, lamp(), true),
        (Rule { clients: names(&["LAMP"]), ..Rule::new(true) }, lamp(), false),
        (Rule { clients: names(&["lamp"]), users: names(&["bert"]), ..Rule::new(true) }, lamp(), false),
        (Rule { networks: networks(&["192.0.2.0/24"]), ..Rule::new(true) }, lamp(), true),
        (
            Rule { networks: networks(&["192.0.2.0/24"]), ..Rule::new(true) },
            subject("a", None, "::ffff:192.0.2.9"),
            true,
        ),
        (Rule { networks: networks(&["10.0.0.0/8", "2001:db8::/32"]), ..Rule::new(true) }, lamp(), false),
        (
            Rule { networks: networks(&["2001:db8::/32"]), ..Rule::new(true) },
            subject("a", None, "2001:db8::7"),
            true,
        ),
        (
            Rule { networks: networks(&["0.0.0.0/0"]), ..Rule::new(true) },
            subject("a", None, "2001:db8::7"),
            false,
        ),
        (Rule { networks: networks(&["::/0"]), ..Rule::new(true) }, subject("a", None, "2001:db8::7"), true),
        (Rule { actions: Actions { publish: false, subscribe: true }, ..Rule::new(true) }, lamp(), false),
    ];
    for (rule, subject, expected) in rules {
        let acl = Acl::new(vec![rule.clone()]);
        assert_eq!(acl.allows(subject, Publish, "a/b"), *expected, "{rule:?} {subject:?}");
        assert_eq!(acl.allows(subject, Subscribe, "a/b"), *expected || !rule.actions.publish, "{rule:?}");
    }
}

/// The tree must say what looking at each rule in its order says.
#[test]
fn the_tree_finds_the_rule_that_is_first() {
    let levels = ["a", "b", "+", "%c", "x%u", "$s"];
    let mut state = 7_u64;
    let mut below = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    for _ in 0..300 {
        let rules: Vec<_> = (0..20)
            .map(|_| {
                let mut pattern: Vec<_> = (0..=below(3)).map(|_| levels[below(levels.len())]).collect();
                if below(3) == 0 {
                    pattern.push("#");
                }
                let mut rule = rule(below(2) == 0, &[&pattern.join("/")]);
                match below(5) {
                    0 => rule.users = names(&["anna", "bert"]),
                    1 => rule.clients = names(&["lamp"]),
                    2 => {
                        rule.networks =
                            Some(vec!["192.0.2.0/24".parse().unwrap(), "192.0.2.7/32".parse().unwrap()]);
                    }
                    _ => {}
                }
                rule
            })
            .collect();
        let acl = Acl::new(rules);
        for _ in 0..20 {
            let topic: Vec<_> = (0..=below(3)).map(|_| ["a", "b", "lamp", "xanna", "$s"][below(5)]).collect();
            let topic = topic.join("/");
            let subject = [lamp(), subject("desk", None, "10.0.0.1")][below(2)];
            // Neither topic nor subject has a wildcard, so covering is matching.
            let levels: Vec<_> = topic.split('/').map(FilterLevel::of).collect();
            let first = acl.rules.iter().find(|rule| {
                rule.is_for(&subject, Publish) && rule.topics.iter().any(|own| own.covers(&subject, &levels))
            });
            let expected = first.is_some_and(|rule| rule.allow);
            assert_eq!(acl.allows(&subject, Publish, &topic), expected, "{topic} {:?}", acl.rules);
        }
    }
}

#[test]
fn what_is_no_pattern() {
    for (text, error) in [
        ("", PatternError::NoTopic),
        ("a\0", PatternError::NoTopic),
        ("a/#/b", PatternError::Wildcard),
        ("a#", PatternError::Wildcard),
        ("a+/b", PatternError::Wildcard),
        ("a/%", PatternError::Placeholder),
        ("%d", PatternError::Placeholder),
        ("%C/#", PatternError::Placeholder),
    ] {
        assert_eq!(text.parse::<Pattern>(), Err(error), "{text:?}");
    }
    assert_eq!("a/".repeat(128).parse::<Pattern>(), Err(PatternError::TooDeep));
}
