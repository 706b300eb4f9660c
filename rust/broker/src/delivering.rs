//! rmqtt's way of a message to its clients, for messages that are kept on the disk.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::shared::{DefaultShared, Entry, RetainLoadCallback, Shared as Delivers};
use rmqtt::types::{
    ForwardedCount, ForwardedRecipients, From, Id, MsgID, NodeId, Publish, QoS, Reason, SessionStatus,
    SubRelations, SubRelationsMap, SubsSearchParams, SubsSearchResult, To, TopicFilter,
};

use crate::keeper::{KeptDelivery, Ready};
use crate::records::mark;
use crate::shared::Shared;

/// rmqtt's sessions. A message goes to those for whom it was written.
pub(crate) struct Delivering {
    sessions: DefaultShared,
    context: rmqtt::context::ServerContext,
    shared: Arc<Shared>,
}

type Errors = Vec<(To, From, Publish, Reason)>;

impl Delivering {
    pub(crate) fn new(context: rmqtt::context::ServerContext, shared: Arc<Shared>) -> Self {
        Self { sessions: DefaultShared::new(Some(context.clone())), context, shared }
    }

    async fn deliver(&self, from: &From, publish: &Publish, ready: Ready) -> Result<usize, (usize, Errors)> {
        let (mut count, mut errors) = (0, Vec::new());
        let mut add = |delivered: Result<ForwardedRecipients, (ForwardedRecipients, Errors)>| match delivered
        {
            Ok(recipients) => count += recipients.len(),
            Err((recipients, failed)) => {
                count += recipients.len();
                errors.extend(failed);
            }
        };
        add(self.sessions.forwards_to(from.clone(), publish, ready.others, None).await);
        for delivery in ready.kept {
            add(self.deliver_kept(from, publish, delivery).await);
        }
        if errors.is_empty() { Ok(count) } else { Err((count, errors)) }
    }

    async fn deliver_kept(
        &self,
        from: &From,
        publish: &Publish,
        delivery: KeptDelivery,
    ) -> Result<ForwardedRecipients, (ForwardedRecipients, Errors)> {
        let mut publish = publish.clone();
        mark(&mut publish, delivery.number);
        let mut tries = 0;
        loop {
            let to = vec![delivery.to.clone()];
            let delivered = self.sessions.forwards_to(from.clone(), &publish, to, None).await;
            let is_still_there =
                self.shared.keeper.as_ref().is_some_and(|keeper| keeper.is_for_session(&delivery));
            if delivered.is_ok() || tries == TRIES || !is_still_there {
                return delivered;
            }
            // While one connection takes over from another, rmqtt knows neither, and drops what comes.
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[async_trait]
impl Delivers for Delivering {
    async fn forwards(
        &self,
        id: Option<MsgID>,
        from: From,
        publish: Publish,
    ) -> Result<ForwardedCount, (ForwardedCount, Errors)> {
        let Some(keeper) = self.shared.keeper.as_ref().filter(|_| publish.qos != QoS::AtMostOnce) else {
            return self.sessions.forwards(id, from, publish).await;
        };
        let mut ready = keeper.take_ready(&from.id);
        // A will: nobody has asked whether it may be published.
        if ready.is_none() && keeper.prepare(&self.context, &from, &publish, false).await.is_ok() {
            ready = keeper.take_ready(&from.id);
        }
        match ready {
            Some(ready) => self.deliver(&from, &publish, ready).await,
            None => self.sessions.forwards(id, from, publish).await,
        }
    }

    fn entry(&self, id: Id) -> Box<dyn Entry> {
        self.sessions.entry(id)
    }

    fn exist(&self, client_id: &str) -> bool {
        self.sessions.exist(client_id)
    }

    async fn forwards_and_get_shareds(
        &self,
        from: From,
        publish: Publish,
    ) -> Result<(SubRelationsMap, ForwardedRecipients), (ForwardedRecipients, Errors)> {
        self.sessions.forwards_and_get_shareds(from, publish).await
    }

    async fn forwards_to(
        &self,
        from: From,
        publish: &Publish,
        relations: SubRelations,
        id: Option<MsgID>,
    ) -> Result<ForwardedRecipients, (ForwardedRecipients, Errors)> {
        self.sessions.forwards_to(from, publish, relations, id).await
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Box<dyn Entry>> + Sync + Send + '_> {
        self.sessions.iter()
    }

    fn random_session(&self) -> Option<rmqtt::session::Session> {
        self.sessions.random_session()
    }

    async fn session_status(&self, client_id: &str) -> Option<SessionStatus> {
        self.sessions.session_status(client_id).await
    }

    async fn client_states_count(&self) -> usize {
        self.sessions.client_states_count().await
    }

    fn sessions_count(&self) -> usize {
        self.sessions.sessions_count()
    }

    async fn query_subscriptions(&self, query: &SubsSearchParams) -> Vec<SubsSearchResult> {
        self.sessions.query_subscriptions(query).await
    }

    async fn subscriptions_count(&self) -> usize {
        self.sessions.subscriptions_count().await
    }

    async fn retain_load_with(
        &self,
        filter: &TopicFilter,
        callback: Arc<dyn RetainLoadCallback>,
    ) -> rmqtt::Result<Vec<(NodeId, MsgID)>> {
        self.sessions.retain_load_with(filter, callback).await
    }

    // With clusters rmqtt asks for its store of messages, too, which is empty.

    #[cfg(feature = "cluster")]
    async fn message_load(
        &self,
        client_id: &str,
        filter: &str,
        group: Option<&rmqtt::types::SharedGroup>,
    ) -> rmqtt::Result<Vec<(MsgID, From, Publish)>> {
        self.sessions.message_load(client_id, filter, group).await
    }

    #[cfg(feature = "cluster")]
    async fn message_mark_forwarded(
        &self,
        node: NodeId,
        id: MsgID,
        recipients: ForwardedRecipients,
    ) -> rmqtt::Result<()> {
        self.sessions.message_mark_forwarded(node, id, recipients).await
    }
}

/// How long a take-over is waited for, and in which steps.
const TRIES: usize = 500;
const PAUSE: Duration = Duration::from_millis(10);
