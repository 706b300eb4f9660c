//! Checks the servers: each at its interval, and at once when somebody asks.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use proxyproto_mqtt::{PacketType, Version};

use super::Pool;
use super::connect::{connect, no_answer};
use super::link::Link;
use super::target::Target;
use super::{header_out, link};
use crate::options::{Check, CheckKind, UpstreamOptions};
use crate::server_name::ServerChange;
use crate::wire::WireError;

/// Checks every server of the pool on this runtime. `tell` is called when one goes up or down.
pub(crate) async fn keep_checked(
    pool: Arc<Pool>,
    runtime: Handle,
    tell: Arc<dyn Fn(ServerChange) + Send + Sync>,
) {
    let mut checked: Vec<Arc<Target>> = Vec::new();
    loop {
        let targets = pool.targets();
        checked.retain(|target| !target.is_removed());
        for target in targets.iter() {
            if !checked.iter().any(|other| Arc::ptr_eq(other, target)) {
                checked.push(Arc::clone(target));
                runtime.spawn(keep_looking(Arc::clone(&pool), Arc::clone(target), Arc::clone(&tell)));
            }
        }
        pool.targets_changed.notified().await;
    }
}

/// Looks at one server until it is removed.
async fn keep_looking(pool: Arc<Pool>, target: Arc<Target>, tell: Arc<dyn Fn(ServerChange) + Send + Sync>) {
    while !target.is_removed() {
        let options = pool.options();
        let number = target.begin_check();
        match look(&target, &options).await {
            // It says nothing of the server.
            Err(WireError::Io(error)) if is_want(&error) => target.skip_check(number),
            looked => {
                let looked = looked.map_err(|error| error.to_string());
                let detail = looked.as_ref().err().cloned().unwrap_or_default();
                if target.end_check(number, looked, &options.check) {
                    tell(ServerChange { server: target.name.clone(), is_up: target.is_up(), detail });
                }
            }
        }
        tokio::select! {
            () = sleep(options.check.interval) => {}
            () = target.wanted() => {}
        }
    }
}

/// Whether this process is out of descriptors or memory.
fn is_want(error: &io::Error) -> bool {
    let want = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    want.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Carries out one check.
async fn look(target: &Target, options: &UpstreamOptions) -> Result<(), WireError> {
    let Check { kind, .. } = &options.check;
    let socket = connect(&target.address, options, None).await?;
    match kind {
        CheckKind::Tcp => {
            // No port of ours shall be in TIME_WAIT for every check.
            socket.forget_unsent();
            Ok(())
        }
        CheckKind::Mqtt { client_id } => {
            let header = header_out::of_ourselves(&socket, options.header);
            let link =
                link::open(socket, &target.name, options, &header, &connect_packet(client_id, options))
                    .await?;
            timeout(options.connect_timeout, answer(link))
                .await
                .map_err(|_| WireError::Io(no_answer(options.connect_timeout)))?
        }
    }
}

/// Any CONNACK is a sign of life.
async fn answer(Link { mut wire, mut received }: Link) -> Result<(), WireError> {
    while received.is_empty() {
        if !wire.receive(&mut received, 64).await? {
            return Err(link::closed());
        }
    }
    match received.first().and_then(|first| PacketType::of(*first)) {
        Some(PacketType::Connack) => wire.send_all(DISCONNECT).await,
        _ => Err(WireError::Io(io::Error::new(io::ErrorKind::InvalidData, "the answer is no CONNACK"))),
    }
}

/// A CONNECT with a clean session, in a version that the servers speak.
fn connect_packet(client_id: &str, options: &UpstreamOptions) -> Vec<u8> {
    let is_5 = !options.versions.contains(Version::Mqtt311) && options.versions.contains(Version::Mqtt5);
    let version = if is_5 { Version::Mqtt5 } else { Version::Mqtt311 };
    let mut packet = b"\0\x04MQTT".to_vec();
    packet.extend([version.level(), CLEAN, 0, KEEP_ALIVE]);
    if is_5 {
        packet.push(0); // no properties
    }
    // The options bound the id, so that the remaining length has one byte.
    packet.extend([0, u8::try_from(client_id.len()).unwrap_or_default()]);
    packet.extend(client_id.as_bytes());
    [&[0x10, u8::try_from(packet.len()).unwrap_or_default()], packet.as_slice()].concat()
}

const CLEAN: u8 = 0x02;
const KEEP_ALIVE: u8 = 60;
const DISCONNECT: &[u8] = b"\xe0\0";
