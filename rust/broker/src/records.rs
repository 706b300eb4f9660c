//! What the records of the store say, and how rmqtt's own types become them.
//!
//! Most are rmqtt's types in postcard: with another version of rmqtt the store needs another format number.

use std::num::{NonZeroU16, NonZeroU32};

use rmqtt::inflight::{MomentStatus, OutInflightMessage};
use rmqtt::session::Session;
use rmqtt::types::{ConnectInfo, From, Publish, QoS, Retain, TimestampMillis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::credential::Secret;

/// A kept session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) connect: ConnectInfo,
    pub(crate) created_at: TimestampMillis,
    /// When its client came last.
    pub(crate) connected_at: TimestampMillis,
    /// How long it is kept after the client has gone, in seconds.
    pub(crate) expiry: u64,
    /// `None`: the client is there.
    pub(crate) disconnected_at: Option<TimestampMillis>,
    /// Whether a process has ended while the client was there, so that deliveries may have been sent of which nothing says so.
    pub(crate) was_cut: bool,
}

impl SessionRecord {
    /// Of a session whose client is there.
    pub(crate) async fn of(session: &Session, expiry: u64) -> rmqtt::Result<Self> {
        let mut connect = ConnectInfo::clone(&*session.connect_info().await?);
        // The will of a connection ends with the process.
        let password = match &mut connect {
            ConnectInfo::V3(_, connect) => {
                connect.last_will = None;
                &mut connect.password
            }
            ConnectInfo::V5(_, connect) => {
                connect.last_will = None;
                &mut connect.password
            }
        };
        if let Some(bytes) = password.take() {
            // The secret of this process is no business of the disk. Behind it is the client's address.
            let mut bytes = bytes.to_vec();
            bytes.iter_mut().take(Secret::LENGTH).for_each(|byte| *byte = 0);
            *password = Some(bytes.into());
        }
        Ok(Self {
            connect,
            created_at: session.created_at().await?,
            connected_at: session.connected_at().await?,
            expiry,
            disconnected_at: None,
            was_cut: false,
        })
    }
}

/// A message, as its publisher has sent it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MessageRecord {
    pub(crate) from: From,
    pub(crate) publish: Publish,
}

/// How a message goes to one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeliveryRecord {
    qos: u8,
    is_retained: bool,
    subscription_ids: Option<Vec<NonZeroU32>>,
    /// Under which packet id it was sent, and what came back.
    sent: Option<(NonZeroU16, MomentStatus)>,
}

impl DeliveryRecord {
    pub(crate) fn new(qos: QoS, is_retained: bool, subscription_ids: Option<Vec<NonZeroU32>>) -> Self {
        Self { qos: qos.value(), is_retained, subscription_ids, sent: None }
    }

    /// Of a message on its way, as the client gets it.
    pub(crate) fn sent(publish: &Publish, status: MomentStatus) -> Self {
        let ids = publish.properties.as_ref().map(|properties| properties.subscription_ids.clone());
        Self { sent: publish.packet_id.map(|id| (id, status)), ..Self::new(publish.qos, publish.retain, ids) }
    }

    /// The message as this client gets it, and what came back if it was sent.
    pub(crate) fn restore(self, mut publish: Publish, may_be_sent: bool) -> (Publish, Option<MomentStatus>) {
        publish.qos = match self.qos {
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        publish.retain = self.is_retained;
        if let (Some(properties), Some(ids)) = (&mut publish.properties, self.subscription_ids) {
            properties.subscription_ids = ids;
        }
        publish.packet_id = self.sent.map(|(id, _)| id);
        publish.dup = may_be_sent || self.sent.is_some();
        (publish, self.sent.map(|(_, status)| status))
    }
}

/// The message of a topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RetainedRecord {
    pub(crate) retain: Retain,
    pub(crate) expires_at: Option<TimestampMillis>,
}

pub(crate) fn encode(record: &impl Serialize) -> Vec<u8> {
    // It fails only for types that do not know their length.
    postcard::to_stdvec(record).unwrap_or_default()
}

/// A record, or why it cannot be read.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(bytes)
}

/// Marks a message on its way to a client with the number of its delivery.
///
/// rmqtt carries `target_clientid` along from here to its hooks, and reads it only before this point.
pub(crate) fn mark(publish: &mut Publish, number: u64) {
    publish.target_clientid = Some(number.to_string().into());
}

/// The number of the delivery, if it is kept.
pub(crate) fn number_of(publish: &Publish) -> Option<u64> {
    publish.target_clientid.as_ref()?.parse().ok()
}

/// The delivery of a message that was sent and is not answered.
pub(crate) fn in_flight(message: &OutInflightMessage) -> Option<(u64, DeliveryRecord)> {
    Some((number_of(&message.publish)?, DeliveryRecord::sent(&message.publish, message.status)))
}
