//! Silent connections of strangers take no descriptors of the process that has the broker.
//!
//! The limit is the process's, so this test has a program of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "clients of threads of their own")]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

#[path = "broker/client.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod client;

use std::fs;
use std::net::TcpStream;

use proxyproto_broker::Acl;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::{Client, Login};

#[test]
fn logins_go_on_while_strangers_connect_and_say_nothing() {
    let broker = client::broker(Acl::default());
    let mut lamp = Login::new(&broker, "lamp").connect(&broker);
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = Rlimit { current: Some(open + FREE), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    // Their ends are in this process, too. Those of the broker do not fit beside them.
    let mut strangers = Vec::new();
    for at in 0..STRANGERS {
        strangers.push(TcpStream::connect(broker.address()).unwrap());
        if at % 20 == 0 {
            let mut plug: Client = Login::new(&broker, "plug").connect(&broker);
            plug.ping();
            lamp.ping();
        }
    }
    Login::new(&broker, "plug").connect(&broker).ping();
    drop(strangers);
}

const FREE: u64 = 200;
const STRANGERS: usize = 150;
