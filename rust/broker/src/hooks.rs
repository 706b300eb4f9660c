//! Where rmqtt asks us: who may log in, who may publish and subscribe, and what becomes of a will.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, ConnectInfo, From, FromType, Publish, PublishAclResult, QoS, Subscribe, SubscribeAclResult,
};

use crate::acl::{Action, Subject};
use crate::credential::client_of_session;
use crate::shared::Shared;
use crate::topic::{is_of_the_server, is_too_deep};

/// Has rmqtt ask.
pub(crate) async fn register(context: &ServerContext, shared: &Arc<Shared>) {
    let register = context.extends.hook_mgr().register();
    for kind in [
        Type::ClientAuthenticate,
        Type::MessagePublishCheckAcl,
        Type::ClientSubscribeCheckAcl,
        Type::MessagePublish,
        Type::MessageDropped,
        Type::MessageExpiryCheck,
    ] {
        register.add(kind, Box::new(Answers(Arc::clone(shared)))).await;
    }
    register.start().await;
}

struct Answers(Arc<Shared>);

#[async_trait]
impl Handler for Answers {
    async fn hook(&self, parameter: &Parameter, before: Option<HookResult>) -> ReturnType {
        let answer = match parameter {
            Parameter::ClientAuthenticate(connect) => Some(HookResult::AuthResult(self.log_in(connect))),
            Parameter::MessagePublishCheckAcl(session, publish) => {
                let is_allowed = self.is_allowed(session, Action::Publish, &publish.topic);
                Some(HookResult::PublishAclResult(if is_allowed {
                    PublishAclResult::allow()
                } else {
                    PublishAclResult::rejected(false, Some("denied by the broker's acl".into()))
                }))
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                Some(HookResult::SubscribeAclResult(self.subscribes(session, subscribe)))
            }
            Parameter::MessagePublish(Some(session), from, publish) => {
                self.will(session, from, publish).map(HookResult::Publish)
            }
            // It would close the connection over one, where MQTT leaves it out (MQTT 5, section 3.1.2.11.4).
            Parameter::MessageExpiryCheck(session, _, publish) if is_too_large(session, publish).await => {
                Some(HookResult::MessageExpiry)
            }
            Parameter::MessageDropped(Some(_), ..) => {
                self.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
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
        if connect.password().is_some_and(|password| self.0.secret.client_of(password).is_some()) {
            return AuthResult::Allow(false, None);
        }
        self.0.counts.strangers.fetch_add(1, Ordering::Relaxed);
        AuthResult::NotAuthorized
    }

    fn subscribes(&self, session: &Session, subscribe: &Subscribe) -> SubscribeAclResult {
        let filter: &str = &subscribe.topic_filter;
        // A shared one comes without this, unless they are off; then rmqtt would take it for a topic.
        if filter.starts_with("$share/") {
            return SubscribeAclResult::new_failure(SubscribeAckReason::SharedSubscriptionNotSupported);
        }
        if self.is_allowed(session, Action::Subscribe, filter) {
            SubscribeAclResult::new_success(subscribe.opts.qos(), None)
        } else {
            SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
        }
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
            may_be(action, topic) && self.0.acl().allows(&subject, action, topic)
        });
        if !is_allowed {
            self.0.denials.add(&session.id.client_id, client, action, topic);
        }
        is_allowed
    }
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
