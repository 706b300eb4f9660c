//! What a thousand rules cost a PUBLISH, in nanoseconds: `cargo run --release -p proxyproto-broker --example acl_cost`.

use std::hint::black_box;
use std::time::Instant;

use proxyproto_broker::{Acl, Action, Pattern, Rule, Subject};

const RULES: usize = 1000;
const PUBLISHES: usize = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let subject =
        Subject { client_id: "device-999", username: Some("user-999"), address: "10.0.3.231".parse()? };
    for (name, make) in SHAPES {
        let mut rules = Vec::new();
        for at in 0..RULES {
            rules.push(make(at)?);
        }
        let acl = Acl::new(rules);
        let topic = black_box("site/area-999/device-999/state/level");
        let began = Instant::now();
        for _ in 0..PUBLISHES {
            black_box(acl.allows(black_box(&subject), Action::Publish, topic));
        }
        let each = began.elapsed() / u32::try_from(PUBLISHES)?;
        println!("{name:40} {:6} ns", each.as_nanos());
    }
    Ok(())
}

type Made = Result<Rule, Box<dyn std::error::Error>>;

type Make = fn(usize) -> Made;

const SHAPES: [(&str, Make); 6] = [
    ("a topic each", |at| on(&format!("site/area-{at}/#"))),
    ("a user each, same topic", |at| {
        Ok(Rule { users: Some([format!("user-{at}")].into()), ..on("site/#")? })
    }),
    ("a client each, same topic", |at| {
        Ok(Rule { clients: Some([format!("device-{at}")].into()), ..on("site/#")? })
    }),
    ("a network each, same topic", |at| {
        let network = format!("10.0.{}.{}/32", at >> 8, at & 255).parse()?;
        Ok(Rule { networks: Some(vec![network]), ..on("site/#")? })
    }),
    ("a wildcard in each", |at| on(&format!("+/area-{at}/+/state/#"))),
    ("a template each", |at| on(&format!("site/area-999/%c/state-{at}/#"))),
];

fn on(topic: &str) -> Made {
    let topic: Pattern = topic.parse()?;
    Ok(Rule { topics: vec![topic], ..Rule::new(true) })
}
