//! Retained messages, in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::retain::{DefaultRetainStorage, RetainStorage};
use rmqtt::types::{Retain, TopicFilter, TopicName};

use crate::shared::Shared;

/// rmqtt's tree of retained messages, with a limit. `rmqtt-retainer` has one too, but with it a full tree takes neither the
/// next message of a topic that is there, nor the empty one that removes it.
#[derive(Clone)]
pub(crate) struct Retained {
    tree: Arc<DefaultRetainStorage>,
    most: Option<usize>,
    shared: Arc<Shared>,
}

impl Retained {
    pub(crate) fn new(most: Option<usize>, shared: Arc<Shared>) -> Self {
        Self { tree: Arc::new(DefaultRetainStorage::new()), most, shared }
    }

    pub(crate) async fn remove_expired(&self) {
        self.tree.remove_expired_messages().await;
    }

    async fn is_full_for(&self, topic: &TopicName) -> bool {
        let Some(most) = self.most else { return false };
        let count = usize::try_from(RetainStorage::count(&*self.tree).await).unwrap_or(0);
        count >= most && self.tree.get_message(topic).await.is_ok_and(|kept| kept.is_empty())
    }
}

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, topic: &TopicName, retain: Retain, expiry: Option<Duration>) -> rmqtt::Result<()> {
        if !retain.publish.payload.is_empty() && self.is_full_for(topic).await {
            self.shared.counts.not_retained.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        // Zero is what rmqtt makes of a message without an expiry.
        self.tree.set_with_timeout(topic, retain, expiry.filter(|expiry| !expiry.is_zero())).await
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        self.tree.get_message(filter).await
    }

    async fn count(&self) -> isize {
        RetainStorage::count(&*self.tree).await
    }

    async fn max(&self) -> isize {
        RetainStorage::max(&*self.tree).await
    }
}
