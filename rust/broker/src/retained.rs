//! Retained messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use rmqtt::retain::{DefaultRetainStorage, RetainStorage};
use rmqtt::types::{Publish, Retain, TopicFilter, TopicName};

use crate::shared::Shared;
use crate::topic::is_of_the_server;

/// rmqtt's tree of retained messages, with a limit. `rmqtt-retainer` has one too, but with it a full tree takes neither the
/// next message of a topic that is there, nor the empty one that removes it.
#[derive(Clone)]
pub(crate) struct Retained {
    tree: Arc<DefaultRetainStorage>,
    /// Those of `$SYS`, which neither count nor are kept.
    own: Arc<DefaultRetainStorage>,
    most: Option<usize>,
    shared: Arc<Shared>,
}

impl Retained {
    pub(crate) fn new(most: Option<usize>, shared: Arc<Shared>) -> Self {
        let tree = || Arc::new(DefaultRetainStorage::new());
        Self { tree: tree(), own: tree(), most, shared }
    }

    pub(crate) async fn remove_expired(&self) {
        self.tree.remove_expired_messages().await;
        if let Some(keeper) = &self.shared.keeper {
            keeper.forget_expired();
        }
    }

    /// A message that was kept, and how long it still is.
    pub(crate) async fn restore(
        &self,
        topic: TopicName,
        retain: Retain,
        left: Option<Duration>,
    ) -> rmqtt::Result<()> {
        self.tree.set_with_timeout(&topic, retain, left).await
    }

    /// Whether the message stays for clients that come later.
    pub(crate) async fn takes(&self, publish: &Publish) -> bool {
        publish.retain && (publish.payload.is_empty() || !self.is_full_for(&publish.topic).await)
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
        if is_of_the_server(topic) {
            return self.own.set_with_timeout(topic, retain, None).await;
        }
        if !self.takes(&retain.publish).await {
            self.shared.counts.not_retained.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if let Some(keeper) = &self.shared.keeper {
            keeper.note_retained(topic, &retain);
        }
        // Zero is what rmqtt makes of a message without an expiry.
        self.tree.set_with_timeout(topic, retain, expiry.filter(|expiry| !expiry.is_zero())).await
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        if is_of_the_server(filter) {
            return self.own.get_message(filter).await;
        }
        self.tree.get_message(filter).await
    }

    /// What a node of the cluster gets that has just come.
    async fn get_all_paginated(
        &self,
        offset: usize,
        limit: usize,
    ) -> rmqtt::Result<(Vec<(TopicName, Retain, Option<Duration>)>, bool)> {
        self.tree.get_all_paginated(offset, limit).await
    }

    async fn count(&self) -> isize {
        RetainStorage::count(&*self.tree).await
    }

    async fn max(&self) -> isize {
        RetainStorage::max(&*self.tree).await
    }
}
