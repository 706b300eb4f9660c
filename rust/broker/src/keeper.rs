//! Keeps on the disk what the broker has promised: sessions, subscriptions, and messages for clients of kept sessions.
//!
//! * A PUBLISH of QoS 1 or 2 is written before its PUBACK or PUBREC goes out, with one row for each client that gets it and has
//!   a kept session. A row goes when the client has acknowledged the message, or when rmqtt drops it.
//! * A session is written before its CONNACK, a subscription before its SUBACK.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rmqtt::context::ServerContext;
use rmqtt::inflight::{MomentStatus, OutInflightMessage};
use rmqtt::session::Session;
use rmqtt::types::{
    ConnectInfo, From, Id, Publish, QoS, Retain, SubRelation, Subscribe, TimestampMillis, TopicName,
};
use rmqtt::utils::timestamp_millis;

use crate::records::{
    DeliveryRecord, MessageRecord, RetainedRecord, SessionRecord, encode, in_flight, number_of,
};
use crate::store::{Change, Delivery, Store, WriteError, Written, until};

#[derive(Debug)]
pub(crate) struct Keeper {
    store: Store,
    next: AtomicU64,
    /// The kept sessions, by client id.
    sessions: Mutex<HashMap<String, Kept>>,
    /// By publisher: the message that is on the disk and not yet on its way.
    ready: Mutex<HashMap<Id, Ready>>,
    /// When the retained messages end that have an end.
    expiring: Mutex<HashMap<String, TimestampMillis>>,
}

#[derive(Debug)]
struct Kept {
    id: Id,
    /// Differs between two sessions of the same client id, of which one is not the other's continuation.
    generation: u64,
    was_cut: bool,
}

/// Who gets a message.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Clients without a kept session, and those who get it with QoS 0.
    pub(crate) others: Vec<SubRelation>,
    pub(crate) kept: Vec<KeptDelivery>,
    is_retained: bool,
}

#[derive(Debug)]
pub(crate) struct KeptDelivery {
    pub(crate) to: SubRelation,
    pub(crate) number: u64,
    generation: u64,
}

impl Keeper {
    pub(crate) fn new(store: Store, next: u64) -> Self {
        Self {
            store,
            next: AtomicU64::new(next),
            sessions: Mutex::default(),
            ready: Mutex::default(),
            expiring: Mutex::default(),
        }
    }

    /// Writes what waits.
    pub(crate) fn close(&self) {
        self.store.close();
    }

    /// Finds out who gets a message, and returns when it is on the disk for them. [`Self::take_ready`] has it from then on.
    pub(crate) async fn prepare(
        &self,
        context: &ServerContext,
        from: &From,
        publish: &Publish,
        is_retained: bool,
    ) -> Result<(), WriteError> {
        let mut ready = Ready { is_retained, ..Ready::default() };
        let matching = context.extends.router().await.matches(from.id.clone(), &publish.topic).await;
        let mut matching = matching.unwrap_or_default();
        let mut deliveries = Vec::new();
        for to in matching.remove(&context.node.id()).unwrap_or_default() {
            let qos = publish.qos.less_value(to.2.qos());
            let generation = if qos == QoS::AtMostOnce { None } else { self.generation(&to.1) };
            let Some(generation) = generation else {
                ready.others.push(to);
                continue;
            };
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let is_retained = publish.retain && to.2.retain_as_published().unwrap_or(false);
            deliveries.push(Delivery {
                client: to.1.to_string(),
                number,
                record: encode(&DeliveryRecord::new(qos, is_retained, to.3.clone())),
            });
            ready.kept.push(KeptDelivery { to, number, generation });
        }
        let mut changes = Vec::new();
        if !deliveries.is_empty() {
            let record = encode(&MessageRecord { from: from.clone(), publish: publish.clone() });
            changes.push(Change::Message { record, deliveries });
        }
        if is_retained {
            let retain = Retain { msg_id: None, from: from.clone(), publish: publish.clone() };
            changes.push(self.retained(&publish.topic, &retain));
        }
        if !changes.is_empty() {
            until(self.store.write(changes)).await?;
        }
        lock(&self.ready).insert(from.id.clone(), ready);
        Ok(())
    }

    /// Who gets the message of this publisher that is on the disk.
    pub(crate) fn take_ready(&self, publisher: &Id) -> Option<Ready> {
        lock(&self.ready).remove(publisher)
    }

    /// Whether the session that a delivery is for still is there.
    pub(crate) fn is_for_session(&self, delivery: &KeptDelivery) -> bool {
        self.generation(&delivery.to.1) == Some(delivery.generation)
    }

    /// Notes what is retained. The message of a publisher that waits for it is on the disk.
    pub(crate) fn note_retained(&self, topic: &TopicName, retain: &Retain) {
        let is_written = lock(&self.ready).get(&retain.from.id).is_some_and(|ready| ready.is_retained);
        if !is_written {
            self.store.write_lazily(vec![self.retained(topic, retain)]);
        }
    }

    /// Forgets retained messages that have ended.
    pub(crate) fn forget_expired(&self) {
        let now = timestamp_millis();
        let mut expiring = lock(&self.expiring);
        let ended: Vec<_> = expiring.extract_if(|_, ends| *ends <= now).map(|(topic, _)| topic).collect();
        // With the lock held, so that no newer message of the topic is written before this.
        if !ended.is_empty() {
            let none = |topic| Change::Retained { topic, record: None };
            self.store.write_lazily(ended.into_iter().map(none).collect());
        }
    }

    /// Notes that a retained message that was found on the disk ends.
    pub(crate) fn expects_end(&self, topic: String, expires_at: TimestampMillis) {
        lock(&self.expiring).insert(topic, expires_at);
    }

    fn retained(&self, topic: &TopicName, retain: &Retain) -> Change {
        let expiry = retain.publish.properties.as_ref().and_then(|own| own.message_expiry_interval);
        let expires_at = expiry.map(|seconds| timestamp_millis() + i64::from(seconds.get()) * 1000);
        let topic = topic.to_string();
        let mut expiring = lock(&self.expiring);
        match expires_at {
            Some(ends) => expiring.insert(topic.clone(), ends),
            None => expiring.remove(&topic),
        };
        let record = RetainedRecord { retain: retain.clone(), expires_at };
        let record = if retain.publish.payload.is_empty() { None } else { Some(encode(&record)) };
        Change::Retained { topic, record }
    }

    /// A session begins that continues no other: what was kept of the client id goes.
    pub(crate) async fn begin(&self, session: &Session) {
        if lock(&self.sessions).remove(&*session.id.client_id).is_some() {
            let ended = self.store.write(vec![ended(&session.id)]);
            let _ = until(ended).await;
        }
    }

    /// The client of a session is there. The session is on the disk when this returns.
    pub(crate) async fn connected(&self, session: &Session) -> Result<(), WriteError> {
        let Some(expiry) = kept_for(session).await else {
            self.begin(session).await;
            return Ok(());
        };
        let record = self.record(session, expiry).await?;
        until(self.store.write(vec![record])).await
    }

    async fn record(&self, session: &Session, expiry: u64) -> Result<Change, WriteError> {
        let mut record = SessionRecord::of(session, expiry).await.map_err(unknown)?;
        record.was_cut = self.note(session.id.clone());
        Ok(session_change(&session.id, &record))
    }

    /// Notes whose session it is now, and returns whether it was cut.
    fn note(&self, id: Id) -> bool {
        let mut sessions = lock(&self.sessions);
        let before = sessions.remove(&*id.client_id);
        let was_cut = before.as_ref().is_some_and(|before| before.was_cut);
        let generation =
            before.map_or_else(|| self.next.fetch_add(1, Ordering::Relaxed), |before| before.generation);
        sessions.insert(id.client_id.to_string(), Kept { id, generation, was_cut });
        was_cut
    }

    /// A session that was found on the disk.
    pub(crate) fn found(&self, id: &Id, record: &SessionRecord) {
        let generation = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.sessions)
            .insert(id.client_id.to_string(), Kept { id: id.clone(), generation, was_cut: record.was_cut });
        self.store.write_lazily(vec![session_change(id, record)]);
    }

    /// The client of a session has gone.
    pub(crate) async fn disconnected(&self, session: &Session) -> Result<(), WriteError> {
        lock(&self.ready).remove(&session.id);
        let Some(was_cut) = self.current(&session.id) else { return Ok(()) };
        let disconnect = session.disconnect().await.unwrap_or_default();
        let expiry = session.fitter.session_expiry_interval(disconnect.as_ref()).as_secs();
        let mut record = SessionRecord::of(session, expiry).await.map_err(unknown)?;
        record.disconnected_at = Some(timestamp_millis());
        record.was_cut = was_cut;
        self.store.write_lazily(vec![session_change(&session.id, &record)]);
        Ok(())
    }

    /// What was on its way when the client went.
    pub(crate) fn left_in_flight(&self, session: &Session, messages: &[OutInflightMessage]) {
        let changes = messages.iter().filter_map(in_flight).map(|(number, record)| {
            let client = session.id.client_id.to_string();
            Change::Delivery(Delivery { client, number, record: encode(&record) })
        });
        self.store.write_lazily(changes.collect());
    }

    /// A message of QoS 2 goes out. After a crash it must go out under the same packet id, for the client to know it again.
    pub(crate) fn sent(&self, session: &Session, publish: &Publish) {
        let Some(number) = number_of(publish).filter(|_| publish.qos == QoS::ExactlyOnce) else { return };
        let record = encode(&DeliveryRecord::sent(publish, MomentStatus::UnReceived));
        let client = session.id.client_id.to_string();
        self.store.write_lazily(vec![Change::Delivery(Delivery { client, number, record })]);
    }

    /// The session has ended.
    pub(crate) fn ended(&self, session: &Session) {
        if self.current(&session.id).is_some() {
            lock(&self.sessions).remove(&*session.id.client_id);
            self.store.write_lazily(vec![ended(&session.id)]);
        }
    }

    /// Forgets what is kept of a client id. It is gone from the disk when what this returns resolves.
    pub(crate) fn forget(&self, id: &Id) -> Written {
        lock(&self.sessions).remove(&*id.client_id);
        self.store.write(vec![ended(id)])
    }

    /// Writes a subscription.
    pub(crate) async fn subscribed(
        &self,
        session: &Session,
        subscribe: &Subscribe,
    ) -> Result<(), WriteError> {
        if self.current(&session.id).is_none() {
            return Ok(());
        }
        let client = session.id.client_id.to_string();
        let (filter, record) = (subscribe.topic_filter.to_string(), encode(&subscribe.opts));
        let mut changes = vec![Change::Subscribed { client, filter, record }];
        // Once more, in case that it could not be written when the client came.
        if let Some(expiry) = kept_for(session).await {
            changes.push(self.record(session, expiry).await?);
        }
        until(self.store.write(changes)).await
    }

    pub(crate) async fn unsubscribed(&self, session: &Session, filter: &str) -> Result<(), WriteError> {
        if self.current(&session.id).is_none() {
            return Ok(());
        }
        let client = session.id.client_id.to_string();
        until(self.store.write(vec![Change::Unsubscribed { client, filter: filter.into() }])).await
    }

    /// The client has a message, or will not get it.
    pub(crate) fn taken(&self, client: &str, publish: &Publish) {
        if let Some(number) = number_of(publish) {
            self.store.write_lazily(vec![Change::Taken { client: client.into(), number }]);
        }
    }

    fn generation(&self, client: &str) -> Option<u64> {
        lock(&self.sessions).get(client).map(|kept| kept.generation)
    }

    /// Whether the kept session of the client id is this one, and whether it was cut.
    fn current(&self, id: &Id) -> Option<bool> {
        lock(&self.sessions).get(&*id.client_id).filter(|kept| kept.id == *id).map(|kept| kept.was_cut)
    }
}

/// How long the session is kept, in seconds, after its client has gone; `None`: it ends with the connection.
async fn kept_for(session: &Session) -> Option<u64> {
    let connect = session.connect_info().await.ok()?;
    let ends = matches!(&*connect, ConnectInfo::V3(_, connect) if connect.clean_session);
    let expiry = session.fitter.session_expiry_interval(None).as_secs();
    if ends || expiry == 0 { None } else { Some(expiry) }
}

/// rmqtt does not know its own session.
#[expect(clippy::needless_pass_by_value, reason = "map_err gives it")]
fn unknown(error: rmqtt::Error) -> WriteError {
    WriteError::new(io::Error::other(error.to_string()))
}

fn session_change(id: &Id, record: &SessionRecord) -> Change {
    Change::Session { client: id.client_id.to_string(), record: encode(record) }
}

fn ended(id: &Id) -> Change {
    Change::Ended { client: id.client_id.to_string() }
}

fn lock<K: Hash, V>(map: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}
