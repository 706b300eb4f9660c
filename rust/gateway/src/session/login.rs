//! The step in which the owner decides: the gateway sends the login as an event and waits for the answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use proxyproto_mqtt::{Connect, Reason};
use tokio::time::timeout;

use super::greeting::refused_by;
use super::registration::Registration;
use super::way::{TurnedAway, Visitor};
use crate::cause::Cause;
use crate::channel::Stage;
use crate::events::{Admission, Event, Login};
use crate::registry::Decision;
use crate::wire::WireError;

impl Visitor {
    /// Sends the login as an event, and waits for the decision.
    pub(super) async fn ask(&mut self, connect: &Arc<Connect>) -> Result<Admission, Box<TurnedAway>> {
        let registration = Registration::new(&self.shared, &self.arrival, connect);
        let login = Login {
            token: registration.token(),
            arrival: Arc::clone(&self.arrival),
            connect: Arc::clone(connect),
        };
        if !self.shared.events.offer(Event::Login(login)) {
            registration.forget();
            return Err(TurnedAway::new(Reason::Busy, "nobody takes the logins"));
        }
        self.registration = Some(registration);
        let limit = self.options.mqtt.auth_timeout;
        let decision = timeout(limit, poll_fn(|cx| self.poll_decision(cx))).await;
        let late = |_| TurnedAway::new(Reason::AuthError, format!("no answer in {} s", limit.as_secs_f64()));
        match decision.map_err(late)?? {
            Decision::Admit(admission) => Ok(admission),
            Decision::Refuse(ending) => Err(ending.into()),
        }
    }

    fn poll_decision(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decision, Box<TurnedAway>>> {
        self.poll_visitor(cx)?;
        match self.registration.as_ref().and_then(|registration| registration.handle.take_decision()) {
            Some(decision) => Poll::Ready(Ok(decision)),
            None => Poll::Pending,
        }
    }

    /// Checks whether the visitor has gone or must end, and keeps the bytes that it sends meanwhile.
    pub(super) fn poll_visitor(&mut self, cx: &mut Context<'_>) -> Result<(), Box<TurnedAway>> {
        if let Some(registration) = &self.registration {
            registration.handle.register(cx.waker());
            if let Some(ending) = registration.handle.take_ending() {
                return Err(ending.into());
            }
        }
        let most = self.options.mqtt.max_connect_size;
        while !self.is_half_closed && self.received.len() < most {
            let room = most - self.received.len();
            match self.client.poll_receive_into(cx, &mut self.received, room) {
                Poll::Pending => break,
                Poll::Ready(Ok(true)) => {}
                // A half-closed channel can carry no answer.
                Poll::Ready(Ok(false)) if self.client.channel().is_some() => return Err(gone()),
                Poll::Ready(Ok(false)) => {
                    self.is_half_closed = true;
                    if let Some(registration) = &self.registration {
                        registration.handle.half_close();
                    }
                }
                Poll::Ready(Err(WireError::Io(_))) => return Err(gone()),
                Poll::Ready(Err(WireError::Channel(fault))) => return Err(refused_by(fault, Stage::Open)),
            }
        }
        Ok(())
    }

    /// Waits for `work`, unless the visitor goes or must end before.
    pub(super) async fn unless_gone<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Box<TurnedAway>> {
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            match self.poll_visitor(cx) {
                Ok(()) => Poll::Pending,
                Err(turned_away) => Poll::Ready(Err(turned_away)),
            }
        })
        .await
    }
}

fn gone() -> Box<TurnedAway> {
    TurnedAway::new(Cause::ClosedEarly, "gone while its login was decided")
}
