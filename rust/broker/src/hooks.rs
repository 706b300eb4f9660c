//! Where rmqtt asks us: who may log in, who may publish and subscribe, and what becomes of a will.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rmqtt::codec::v5::{PublishAckReason, SubscribeAckReason};
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::inflight::{MomentStatus, OutInflightMessage};
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, ConnectInfo, From, FromType, Publish, PublishAclResult, PublishResult, QoS, Subscribe,
    SubscribeAclResult,
};

use crate::acl::{Action, Subject};
use crate::credential::client_of_session;
use crate::keeper::Keeper;
use crate::retained::Retained;
use crate::shared::Shared;
use crate::store::WriteError;
use crate::topic::{is_of_the_server, is_too_deep};

/// Has rmqtt ask.
pub(crate) async fn register(context: &ServerContext, shared: &Arc<Shared>, retained: &Retained) {
    let register = context.extends.hook_mgr().register();
    for kind in [
        Type::ClientAuthenticate,
        Type::MessagePublishCheckAcl,
        Type::ClientSubscribeCheckAcl,
        Type::MessagePublish,
        Type::MessageDelivered,
        Type::MessageDropped,
        Type::MessageExpiryCheck,
    ] {
        let answers = Answers { shared: Arc::clone(shared), retained: retained.clone() };
        register.add(kind, Box::new(answers)).await;
    }
    if shared.keeper.is_some() {
        for kind in [
            Type::SessionCreated,
            Type::ClientConnected,
            Type::ClientDisconnected,
            Type::SessionTerminated,
            Type::SessionUnsubscribed,
            Type::MessageDelivered,
            Type::MessageAcked,
            Type::MessageDropped,
            Type::OfflineInflightMessages,
        ] {
            register.add(kind, Box::new(Keeps(Arc::clone(shared)))).await;
        }
    }
    register.start().await;
}

struct Answers {
    shared: Arc<Shared>,
    retained: Retained,
}

#[async_trait]
impl Handler for Answers {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        let answer = match parameter {
            Parameter::ClientAuthenticate(connect) => Some(HookResult::AuthResult(self.log_in(connect))),
            Parameter::MessagePublishCheckAcl(session, publish) => {
                Some(HookResult::PublishAclResult(self.publishes(session, publish).await))
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                Some(HookResult::SubscribeAclResult(self.subscribes(session, subscribe).await))
            }
            Parameter::MessagePublish(Some(session), from, publish) => {
                add(&self.shared.counts.received, &self.shared.counts.bytes_received, publish);
                self.will(session, from, publish).map(HookResult::Publish)
            }
            // It would close the connection over one, where MQTT leaves it out (MQTT 5, section 3.1.2.11.4).
            Parameter::MessageExpiryCheck(session, _, publish) if is_too_large(session, publish).await => {
                Some(HookResult::MessageExpiry)
            }
            Parameter::MessageDelivered(session, from, publish) => {
                add(&self.shared.counts.sent, &self.shared.counts.bytes_sent, publish);
                put_in_flight(session, from, publish).await;
                None
            }
            Parameter::MessageDropped(Some(_), ..) => {
                self.shared.counts.dropped.fetch_add(1, Ordering::Relaxed);
                None
            }
            _ => None,
        };
        match answer {
            Some(answer) => (false, Some(answer)),
            None => (true, before),
        }
    }
}

impl Answers {
    fn log_in(&self, connect: &ConnectInfo) -> AuthResult {
        if connect.password().is_some_and(|password| self.shared.secret.client_of(password).is_some()) {
            return AuthResult::Allow(false, None);
        }
        self.shared.counts.strangers.fetch_add(1, Ordering::Relaxed);
        AuthResult::NotAuthorized
    }

    async fn publishes(&self, session: &Session, publish: &Publish) -> PublishAclResult {
        if !self.is_allowed(session, Action::Publish, &publish.topic) {
            return PublishAclResult::rejected(false, Some("denied by the broker's acl".into()));
        }
        let keeper = self.shared.keeper.as_ref().filter(|_| publish.qos != QoS::AtMostOnce);
        let Some(keeper) = keeper else { return PublishAclResult::allow() };
        let from = From::from_custom(session.id.clone());
        let is_retained = self.retained.takes(publish).await;
        match keeper.prepare(&session.scx, &from, publish, is_retained).await {
            Ok(()) => PublishAclResult::allow(),
            Err(error) => {
                self.shared.unwritten.add(&error);
                // Before MQTT 5 no answer says no.
                let closes = matches!(session.protocol().await, Ok(version) if version < 5);
                let why = format!("the broker cannot write the message down: {error}");
                PublishAclResult(PublishResult::reason_code(
                    PublishAckReason::QuotaExceeded,
                    Some(why.into()),
                    closes,
                ))
            }
        }
    }

    async fn subscribes(&self, session: &Session, subscribe: &Subscribe) -> SubscribeAclResult {
        let filter: &str = &subscribe.topic_filter;
        // A shared one comes without this, unless they are off; then rmqtt would take it for a topic.
        if filter.starts_with("$share/") {
            return SubscribeAclResult::new_failure(SubscribeAckReason::SharedSubscriptionNotSupported);
        }
        if !self.is_allowed(session, Action::Subscribe, filter) {
            return SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized);
        }
        if let Some(keeper) = &self.shared.keeper
            && let Err(error) = keeper.subscribed(session, subscribe).await
        {
            self.shared.unwritten.add(&error);
            return SubscribeAclResult::new_failure(SubscribeAckReason::QuotaExceeded);
        }
        SubscribeAclResult::new_success(subscribe.opts.qos(), None)
    }

    /// rmqtt publishes a will without asking whether the client may, and a hook can change it but not drop it. So a denied
    /// one goes, empty, to a topic that nobody may subscribe to.
    fn will(&self, session: &Session, from: &From, publish: &Publish) -> Option<Publish> {
        let is_will = matches!(from.typ(), FromType::LastWill);
        if !is_will || self.is_allowed(session, Action::Publish, &publish.topic) {
            return None;
        }
        let mut nothing = publish.clone();
        nothing.topic = NOWHERE.into();
        nothing.payload.clear();
        nothing.retain = false;
        nothing.properties = None;
        Some(nothing)
    }

    fn is_allowed(&self, session: &Session, action: Action, topic: &str) -> bool {
        let client = session.password().and_then(|password| client_of_session(password));
        let is_allowed = client.is_some_and(|client| {
            let subject = Subject {
                client_id: &session.id.client_id,
                username: session.id.username.as_deref().filter(|name| !name.is_empty()),
                address: client.ip(),
            };
            may_be(action, topic) && self.shared.acl().allows(&subject, action, topic)
        });
        if !is_allowed {
            self.shared.denials.add(&session.id.client_id, client, action, topic);
        }
        is_allowed
    }
}

/// Tells the keeper what has happened.
struct Keeps(Arc<Shared>);

#[async_trait]
impl Handler for Keeps {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        if let Some(keeper) = &self.0.keeper
            && let Err(error) = self.tell(keeper, parameter).await
        {
            self.0.unwritten.add(&error);
        }
        (true, before)
    }
}

impl Keeps {
    async fn tell(&self, keeper: &Keeper, parameter: &Parameter<'_>) -> Result<(), WriteError> {
        match parameter {
            Parameter::SessionCreated(session) => keeper.begin(session).await,
            Parameter::ClientConnected(session) => keeper.connected(session).await?,
            Parameter::ClientDisconnected(session, _) => keeper.disconnected(session).await?,
            Parameter::OfflineInflightMessages(session, messages) => keeper.left_in_flight(session, messages),
            Parameter::SessionTerminated(session, _) => keeper.ended(session),
            Parameter::SessionUnsubscribed(session, unsubscribe) => {
                keeper.unsubscribed(session, &unsubscribe.topic_filter).await?;
            }
            Parameter::MessageDelivered(session, _, publish) => keeper.sent(session, publish),
            Parameter::MessageAcked(session, _, publish) => keeper.taken(&session.id.client_id, publish),
            Parameter::MessageDropped(Some(to), _, publish, _) => keeper.taken(&to.client_id, publish),
            _ => {}
        }
        Ok(())
    }
}

/// Counts one message and its payload.
fn add(messages: &AtomicU64, bytes: &AtomicU64, publish: &Publish) {
    messages.fetch_add(1, Ordering::Relaxed);
    bytes.fetch_add(publish.payload.len() as u64, Ordering::Relaxed);
}

/// Has the session remember a message before it is sent. rmqtt does so after that, and if the connection breaks while it sends,
/// it forgets a message that was neither acknowledged nor sent.
async fn put_in_flight(session: &Session, from: &From, publish: &Publish) {
    let status = match publish.qos {
        QoS::AtMostOnce => return,
        QoS::AtLeastOnce => MomentStatus::UnAck,
        QoS::ExactlyOnce => MomentStatus::UnReceived,
    };
    let message = OutInflightMessage::new(status, from.clone(), publish.clone());
    session.out_inflight().write().await.push_back(message);
}

/// Whether the client of the session takes no packets as large as this one.
async fn is_too_large(session: &Session, publish: &Publish) -> bool {
    let Ok(connect) = session.connect_info().await else { return false };
    let ConnectInfo::V5(_, connect) = &*connect else { return false };
    let Some(most) = connect.max_packet_size else { return false };
    publish_size(publish, connect.topic_alias_max > 0) > most.get() as usize
}

/// The size of the PUBLISH that a client of MQTT 5 gets, as rmqtt counts it.
fn publish_size(publish: &Publish, has_alias: bool) -> usize {
    let number_size = |number: usize| match number {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    };
    let mut properties = if has_alias { 3 } else { 0 };
    if let Some(own) = &publish.properties {
        let text = |text: Option<usize>| text.map_or(0, |length| 3 + length);
        properties += if own.message_expiry_interval.is_some() { 5 } else { 0 };
        properties += if own.is_utf8_payload { 2 } else { 0 };
        properties += text(own.content_type.as_ref().map(|text| text.len()));
        properties += text(own.response_topic.as_ref().map(|text| text.len()));
        properties += text(own.correlation_data.as_deref().map(<[u8]>::len));
        properties +=
            own.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>();
        properties += own.subscription_ids.iter().map(|id| 1 + number_size(id.get() as usize)).sum::<usize>();
    }
    let id = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    FIXED_HEADER + 2 + publish.topic.len() + id + number_size(properties) + properties + publish.payload.len()
}

/// Whether anybody may, whatever the rules say.
fn may_be(action: Action, topic: &str) -> bool {
    // What begins with `$` is the broker's to publish.
    let is_ours = match action {
        Action::Publish => is_of_the_server(topic),
        Action::Subscribe => topic.split('/').next() == Some(NOWHERE),
    };
    !is_ours && !is_too_deep(topic)
}

/// Where denied wills go.
const NOWHERE: &str = "$denied";
/// What rmqtt counts for a fixed header, however short it is (rmqtt-codec 0.3.1, `set_max_outbound_size`).
const FIXED_HEADER: usize = 5;
