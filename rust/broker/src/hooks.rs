//! Where rmqtt asks us: who may log in, who may publish and subscribe, and what becomes of a will.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, ConnectInfo, From, FromType, Publish, PublishAclResult, Subscribe, SubscribeAclResult,
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
