//! What is left of a broker that has ended.

use std::fs;
use std::time::{Duration, Instant};

use proxyproto_broker::Acl;

use crate::client::{Login, broker};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// It runs in a process of its own, where no other test opens descriptors.
#[test]
fn nothing_stays_open() {
    if std::env::var_os("ALONE").is_none() {
        let program = std::env::current_exe().unwrap();
        let mut alone = std::process::Command::new(program);
        alone.args(["--exact", "ends::nothing_stays_open"]).env("ALONE", "1");
        assert!(alone.status().unwrap().success());
        return;
    }
    let before = descriptors();
    for _ in 0..3 {
        let broker = broker(Acl::default());
        let mut lamp = Login { is_clean: false, ..Login::new(&broker, "lamp") }.connect(&broker);
        assert_eq!(lamp.subscribe("a/#"), 1);
        lamp.publish("b", "1", true);
        drop(broker);
        assert!(lamp.is_closed());
    }
    // rmqtt's last tasks let go of theirs a little later on a busy machine.
    let deadline = Instant::now() + Duration::from_secs(20);
    while descriptors() != before {
        assert!(Instant::now() < deadline, "{} descriptors, and {before} before", descriptors());
        std::thread::yield_now();
    }
}
