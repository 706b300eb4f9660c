//! Gives rmqtt the sessions and retained messages that were kept.

use std::sync::Arc;
use std::time::Duration;

use rmqtt::context::ServerContext;
use rmqtt::inflight::OutInflightMessage;
use rmqtt::session::{Session, SessionState};
use rmqtt::types::{
    ConnectInfo, DisconnectInfo, Id, ListenerConfig, ListenerId, SessionSubs, SubscriptionOptions,
    TimestampMillis,
};
use rmqtt::utils::timestamp_millis;

use crate::keeper::Keeper;
use crate::records::{DeliveryRecord, MessageRecord, RetainedRecord, SessionRecord, decode, mark};
use crate::retained::Retained;
use crate::store::Contents;

/// What the sessions need of the broker that they come back to.
pub(crate) struct Restoring<'b> {
    pub(crate) context: &'b ServerContext,
    pub(crate) keeper: &'b Keeper,
    pub(crate) listener: ListenerConfig,
    pub(crate) listener_id: ListenerId,
}

impl Restoring<'_> {
    /// Restores everything that has not ended in the meantime.
    pub(crate) async fn run(&self, mut contents: Contents, retained: &Retained) -> rmqtt::Result<()> {
        for (topic, record) in std::mem::take(&mut contents.retained) {
            let record: RetainedRecord = decode(&record)?;
            let left = record.expires_at.map(remaining_until);
            if let Some(expires_at) = record.expires_at {
                self.keeper.expects_end(topic.clone(), expires_at);
            }
            if left.is_none_or(|left| !left.is_zero()) {
                retained.restore(topic.into(), record.retain, left).await?;
            }
        }
        for (client, record) in std::mem::take(&mut contents.sessions) {
            let record = decode(&record)?;
            self.session(&client, record, &mut contents).await?;
        }
        Ok(())
    }

    async fn session(
        &self,
        client: &str,
        mut record: SessionRecord,
        contents: &mut Contents,
    ) -> rmqtt::Result<()> {
        let id = Id::new(
            self.context.node.id(),
            self.listener_id,
            None,
            None,
            client.into(),
            record.connect.username().cloned(),
        );
        let now = timestamp_millis();
        record.was_cut |= record.disconnected_at.is_none();
        let disconnected_at = *record.disconnected_at.get_or_insert(now);
        let expiry = i64::try_from(record.expiry).unwrap_or(i64::MAX).saturating_mul(1000);
        let left = remaining_until(disconnected_at.saturating_add(expiry));
        if left.is_zero() {
            drop(self.keeper.forget(&id));
            return Ok(());
        }
        self.keeper.found(&id, &record);
        let subscriptions = self.subscriptions(&id, contents).await?;
        let session = self.new_session(id, &record, subscriptions).await?;
        self.messages(&session, &record, contents).await?;
        let sender = SessionState::offline_restart(session.clone(), left).await?;
        self.context.extends.shared().await.entry(session.id.clone()).set(session, sender).await
    }

    async fn subscriptions(&self, id: &Id, contents: &mut Contents) -> rmqtt::Result<SessionSubs> {
        let subscriptions = SessionSubs::new();
        for (filter, options) in contents.subscriptions.remove(&*id.client_id).unwrap_or_default() {
            let options: SubscriptionOptions = decode(&options)?;
            self.context.extends.router().await.add(&filter, id.clone(), options.clone()).await?;
            subscriptions.write().await.insert(filter.into(), options);
        }
        Ok(subscriptions)
    }

    async fn new_session(
        &self,
        id: Id,
        record: &SessionRecord,
        subscriptions: SessionSubs,
    ) -> rmqtt::Result<Session> {
        let connect = Arc::new(match record.connect.clone() {
            ConnectInfo::V3(_, connect) => ConnectInfo::V3(id.clone(), connect),
            ConnectInfo::V5(_, connect) => ConnectInfo::V5(id.clone(), connect),
        });
        let managers = &self.context.extends;
        let fitter = managers.fitter_mgr().await.create(connect.clone(), id.clone(), self.listener.clone());
        let (most_queued, most_in_flight) = (fitter.max_mqueue_len(), fitter.max_inflight());
        Session::new(
            id,
            self.context.clone(),
            most_queued,
            self.listener.clone(),
            fitter,
            None,
            most_in_flight,
            record.created_at,
            connect,
            false,
            false,
            false,
            record.connected_at,
            subscriptions,
            Some(DisconnectInfo::new(record.disconnected_at.unwrap_or_default())),
            None,
        )
        .await
    }

    async fn messages(
        &self,
        session: &Session,
        record: &SessionRecord,
        contents: &mut Contents,
    ) -> rmqtt::Result<()> {
        let client = &*session.id.client_id;
        for (number, message, delivery) in contents.deliveries.remove(client).unwrap_or_default() {
            let Some(message) = contents.messages.get(&message) else { continue };
            let MessageRecord { from, publish } = decode(message)?;
            let delivery: DeliveryRecord = decode(&delivery)?;
            let (mut publish, sent) = delivery.restore(publish, record.was_cut);
            mark(&mut publish, number);
            if let Some(status) = sent {
                let message = OutInflightMessage::new(status, from, publish);
                session.out_inflight().write().await.push_back(message);
            } else if let Err((_, publish)) = session.deliver_queue().push((from, publish)) {
                // `max_queued` is less than it was.
                self.keeper.taken(client, &publish);
            }
        }
        Ok(())
    }
}

fn remaining_until(time: TimestampMillis) -> Duration {
    Duration::from_millis(u64::try_from(time.saturating_sub(timestamp_millis())).unwrap_or(0))
}
