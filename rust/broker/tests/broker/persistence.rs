//! What survives: sessions, subscriptions, messages on their way and retained ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proxyproto_broker::{Acl, Broker, Forgotten, Options};

use crate::client::{Client, Login, options};

/// A directory that is gone when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("proxyproto-broker-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// The disk as a process finds it that starts after this one was killed now.
    fn after_a_crash(&self) -> PathBuf {
        let copy = self.0.join("copy");
        fs::create_dir_all(&copy).unwrap();
        fs::copy(self.store().join("broker.redb"), copy.join("broker.redb")).unwrap();
        copy
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn keeping(store: &Path) -> Options {
    let mut options = options();
    options.persistence = Some(store.into());
    options
}

fn start(store: &Path) -> Broker {
    Broker::start(keeping(store), Acl::default()).unwrap()
}

fn refused(store: &Path) -> String {
    Broker::start(keeping(store), Acl::default()).unwrap_err().to_string()
}

fn lamp(broker: &Broker, version: u8) -> Login {
    let client_id = format!("lamp-{version}");
    Login { version, client_id, is_clean: false, session_expiry: 3600, ..Login::new(broker, "") }
}

fn desk(broker: &Broker) -> Client {
    Login::new(broker, "desk").connect(broker)
}

#[test]
fn a_session_its_messages_and_retained_ones_survive() {
    let directory = Directory::new("survive");
    let broker = start(&directory.store());
    for version in [4, 5] {
        let mut lamp = lamp(&broker, version).connect(&broker);
        assert_eq!((lamp.subscribe("a/#"), lamp.subscribe("b")), (1, 1));
        lamp.go_away();
    }
    let mut publisher = desk(&broker);
    for number in 0..20 {
        assert_eq!(publisher.publish("a/b", &number.to_string(), false), 0);
    }
    assert_eq!(publisher.publish("news", "old", true), 0);
    assert_eq!(publisher.publish("news", "new", true), 0);
    assert_eq!(publisher.publish("gone", "old", true), 0);
    assert_eq!(publisher.publish("gone", "", true), 0);

    let crashed = directory.after_a_crash();
    drop(broker);
    for store in [crashed, directory.store()] {
        let broker = start(&store);
        let stats = broker.stats();
        assert_eq!((stats.sessions, stats.subscriptions, stats.retained), (2, 4, 1));
        for version in [4, 5] {
            let shown = broker.subscriptions(&format!("lamp-{version}")).unwrap();
            assert_eq!(shown.iter().map(|shown| &*shown.filter).collect::<Vec<_>>(), ["a/#", "b"]);
        }
        let mut kept = broker.kept();
        kept.sort_by_key(|kept| kept.version);
        let told: Vec<_> = kept.iter().map(|kept| (kept.version, &*kept.client_id, kept.client)).collect();
        let client = Some("192.0.2.7:1".parse().unwrap());
        assert_eq!(told, [(4, "lamp-4", client), (5, "lamp-5", client)]);
        assert!(kept.iter().all(|kept| kept.username.as_deref() == Some("anna")));
        assert!(kept.iter().all(|kept| 0 < kept.connected_at && kept.connected_at <= kept.disconnected_at));
        assert_eq!((kept[0].session_expiry, kept[1].session_expiry), (7 * 24 * 3600, 3600));
        let mut lamps = [4, 5].map(|version| lamp(&broker, version).connect(&broker));
        for lamp in &mut lamps {
            assert!(lamp.session_present);
            for number in 0..20 {
                assert_eq!(lamp.message(), ("a/b".into(), number.to_string()));
            }
        }
        // The subscriptions are more than shown.
        desk(&broker).publish("b", "now", false);
        for lamp in &mut lamps {
            assert_eq!(lamp.message(), ("b".into(), "now".into()));
            assert_eq!((lamp.subscribe("gone"), lamp.subscribe("news")), (1, 1));
            assert_eq!(lamp.message(), ("news".into(), "new".into()));
            lamp.ping();
        }
    }
}

#[test]
fn what_a_client_has_acknowledged_does_not_come_again() {
    let directory = Directory::new("acknowledged");
    let broker = start(&directory.store());
    let mut lamp = lamp(&broker, 4).connect(&broker);
    assert_eq!(lamp.subscribe("a"), 1);
    let mut publisher = desk(&broker);
    for number in 0..3 {
        publisher.publish("a", &number.to_string(), false);
    }
    assert_eq!((lamp.message().1, lamp.message().1), ("0".into(), "1".into()));
    // The third is on its way, and is not answered.
    assert_eq!(lamp.read().0, 0x32);
    lamp.ping();
    lamp.go_away();
    drop(broker);

    let broker = start(&directory.store());
    let mut lamp = self::lamp(&broker, 4).connect(&broker);
    let (first, body) = lamp.read();
    assert_eq!((first, body.last()), (0x3a, Some(&b'2')), "the third, with DUP");
    lamp.ping();
}

#[test]
fn what_may_have_been_sent_before_a_crash_comes_with_dup() {
    let directory = Directory::new("dup");
    let broker = start(&directory.store());
    let mut lamp = lamp(&broker, 4).connect(&broker);
    assert_eq!(lamp.subscribe("a"), 1);
    desk(&broker).publish("a", "1", false);
    assert_eq!(lamp.read().0, 0x32);
    let crashed = start(&directory.after_a_crash());
    let mut lamp = self::lamp(&crashed, 4).connect(&crashed);
    assert_eq!(lamp.read().0, 0x3a);
}

#[test]
fn a_session_that_has_ended_or_is_forgotten_stays_away() {
    let directory = Directory::new("forgotten");
    let broker = start(&directory.store());
    for version in [4, 5] {
        let mut lamp = lamp(&broker, version).connect(&broker);
        assert_eq!(lamp.subscribe("a"), 1);
        lamp.go_away();
    }
    desk(&broker).publish("a", "1", false);
    assert_eq!(broker.forget("lamp-4"), Forgotten::Gone);
    let again = Login { is_clean: true, ..lamp(&broker, 5) };
    assert!(!again.connect(&broker).session_present);
    drop(broker);
    let broker = start(&directory.store());
    assert_eq!(broker.subscriptions("lamp-4"), None);
    assert_eq!(broker.subscriptions("lamp-5"), Some(vec![]));
    assert!(lamp(&broker, 5).connect(&broker).session_present);
}

#[test]
fn one_process_has_the_store_and_nobody_else_reads_it() {
    let directory = Directory::new("lock");
    let broker = start(&directory.store());
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = directory.store().join("broker.redb");
    assert_eq!((mode(directory.store()), mode(file)), (0o700, 0o600));
    let text = refused(&directory.store());
    assert!(text.contains("another process has it"), "{text}");
    drop(broker);
    start(&directory.store());
}

#[test]
fn a_damaged_store_is_told_and_left_as_it_is() {
    let directory = Directory::new("damaged");
    drop(start(&directory.store()));
    let file = directory.store().join("broker.redb");
    let whole = fs::read(&file).unwrap();
    let zeros = whole.iter().enumerate().map(|(at, byte)| if at > 100 { 0 } else { *byte }).collect();
    for damaged in [b"not a store at all".to_vec(), whole[..whole.len() / 2].to_vec(), zeros] {
        fs::write(&file, &damaged).unwrap();
        let text = refused(&directory.store());
        assert!(text.contains("is damaged") && text.contains("store: broker.redb"), "{text}");
        assert!(fs::read(&file).unwrap() == damaged, "it has been changed: {text}");
    }
    let text = refused(&directory.0.join("not").join("there"));
    assert!(text.contains("No such file or directory"), "{text}");
}

#[test]
fn a_store_of_a_newer_version_is_told_and_left_as_it_is() {
    let directory = Directory::new("newer");
    drop(start(&directory.store()));
    let file = directory.store().join("broker.redb");
    let about = redb::TableDefinition::<&str, u64>::new("about");
    let note = |format: u64| {
        let transaction = redb::Database::open(&file).unwrap().begin_write().unwrap();
        let before =
            transaction.open_table(about).unwrap().insert("format", format).unwrap().unwrap().value();
        transaction.commit().unwrap();
        before
    };
    let ours = note(u64::MAX);
    let text = refused(&directory.store());
    assert!(text.contains("its format is not that of this version"), "{text}");
    assert!(text.contains("Use the version that wrote it, or name another directory"), "{text}");
    assert_eq!(note(ours), u64::MAX, "nobody has written another");
    drop(start(&directory.store()));
}
