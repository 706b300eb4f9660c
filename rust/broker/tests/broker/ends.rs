//! What is left of a broker that has ended.

use std::fs;

use proxyproto_broker::Acl;

use crate::client::{Login, broker};

const BROKERS: usize = 5;

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
    for _ in 0..BROKERS {
        let broker = broker(Acl::default());
        let mut lamp = Login { is_clean: false, ..Login::new(&broker, "lamp") }.connect(&broker);
        assert_eq!(lamp.subscribe("a/#"), 1);
        lamp.publish("b", "1", true);
        drop(broker);
        assert!(lamp.is_closed());
    }
    // On a busy machine the runtime of one broker or another leaves its epoll instance and its event fd, and we do not know
    // why. What each broker left would be two for each.
    let left = descriptors().saturating_sub(before);
    assert!(left < 2 * BROKERS, "{left} descriptors are left");
}
