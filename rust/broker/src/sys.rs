//! What the broker publishes of itself, under the names that Mosquitto gives to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rmqtt::codec::types::Publish as Packet;
use rmqtt::context::ServerContext;
use rmqtt::session::SessionState;
use rmqtt::types::{From, Id, QoS};
use tokio::time::MissedTickBehavior;

use crate::shared::Shared;

/// Publishes all topics at the start and then every `interval`, retained, and returns never.
pub(crate) async fn publish(context: &ServerContext, shared: &Arc<Shared>, interval: Duration) {
    let started = Instant::now();
    let mut most_connected = 0;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let connected = count(context.connections.count());
        most_connected = connected.max(most_connected);
        let sessions = context.extends.shared().await.sessions_count() as u64;
        let subscriptions = context.extends.shared().await.subscriptions_count().await as u64;
        let retained = count(context.extends.retain().await.count().await);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &shared.counts;
        send(context, "version", format!("proxyproto_rs {}", env!("CARGO_PKG_VERSION"))).await;
        send(context, "uptime", format!("{} seconds", started.elapsed().as_secs())).await;
        for (topic, value) in [
            ("clients/connected", connected),
            ("clients/maximum", most_connected),
            ("clients/disconnected", sessions.saturating_sub(connected)),
            ("clients/total", sessions.max(connected)),
            ("publish/messages/received", read(&counts.received)),
            ("publish/messages/sent", read(&counts.sent)),
            ("publish/messages/dropped", read(&counts.dropped)),
            ("publish/bytes/received", read(&counts.bytes_received)),
            ("publish/bytes/sent", read(&counts.bytes_sent)),
            ("subscriptions/count", subscriptions),
            ("retained messages/count", retained),
        ] {
            send(context, topic, value.to_string()).await;
        }
    }
}

async fn send(context: &ServerContext, topic: &str, text: String) {
    let packet = Packet {
        dup: false,
        retain: true,
        qos: QoS::AtMostOnce,
        topic: format!("$SYS/broker/{topic}").into(),
        packet_id: None,
        payload: text.into(),
        properties: Some(rmqtt::codec::v5::PublishProperties::default()),
    };
    let from = From::from_system(Id::from(context.node.id(), "".into()));
    // Each client that cannot have it is told to the hooks.
    let _ = SessionState::forwards(context, from, packet.into(), false, None).await;
}

/// A counter of rmqtt, which may be below zero for a moment.
fn count(of_rmqtt: isize) -> u64 {
    u64::try_from(of_rmqtt).unwrap_or(0)
}
