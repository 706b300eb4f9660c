//! Shared subscriptions: which member of a group gets a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::subscribe::SharedSubscription;
use rmqtt::types::{
    ClientId, Id, IsOnline, NodeId, SharedGroup, SubscriptionIdentifier, SubscriptionOptions, TopicName,
};

use crate::shared::Shared;

/// Each member in turn, those that are there before those that are away.
#[derive(Debug)]
pub(crate) struct InTurn {
    turn: AtomicUsize,
    shared: Arc<Shared>,
}

impl InTurn {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { turn: AtomicUsize::new(0), shared: Arc::clone(shared) }
    }
}

type Member = (NodeId, ClientId, SubscriptionOptions, Option<Vec<SubscriptionIdentifier>>, Option<IsOnline>);

#[async_trait]
impl SharedSubscription for InTurn {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        context: &ServerContext,
        _group: &SharedGroup,
        _publisher: &Id,
        _topic: &TopicName,
        members: &[Member],
    ) -> Option<(usize, IsOnline)> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let turns = (0..members.len()).map(|step| first.wrapping_add(step) % members.len());
        let (mut away, mut gone) = (None, None);
        for at in turns {
            let (node, client_id, _, _, is_online) = members.get(at)?;
            // rmqtt goes on to say "online" of the clients of a node that has gone.
            if self.shared.is_silent(*node) {
                gone = gone.or(Some((at, false)));
                continue;
            }
            let is_online = if let Some(is_online) = is_online {
                *is_online
            } else {
                let id = Id::from(*node, client_id.clone());
                context.extends.shared().await.entry(id).is_connected().await
            };
            if is_online {
                return Some((at, true));
            }
            away = away.or(Some((at, false)));
        }
        away.or(gone)
    }
}
