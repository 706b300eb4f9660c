//! The registration of a login or session: it lasts from the first event about it to the last.

use std::sync::Arc;
use std::time::Duration;

use proxyproto_mqtt::{Connect, Reason};
use tokio::time::Instant;

use super::relay::Said;
use crate::arrival::{Arrival, SessionId};
use crate::events::{Ended, Event, Refused, Token};
use crate::listening::Direction;
use crate::registry::{Ending, Entry, Handle};
use crate::shared::Shared;

/// A registered login, and later its session. Its drop sends the last event if nobody else has, as when the workers stop.
pub(crate) struct Registration {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: Arc<Handle>,
    session_id: SessionId,
    stage: Stage,
}

enum Stage {
    Login { arrival: Arc<Arrival>, connect: Arc<Connect> },
    Session { since: Instant },
    Told,
}

impl Registration {
    /// Registers a login. The caller sends its event next.
    pub(crate) fn new(shared: &Arc<Shared>, arrival: &Arc<Arrival>, connect: &Arc<Connect>) -> Self {
        let handle = Arc::new(Handle::new(shared.next_token()));
        handle.meter.seen(shared.started.0.elapsed());
        handle.meter.count(Direction::In, connect.raw().len(), 1);
        shared.table.insert(&handle);
        let stage = Stage::Login { arrival: Arc::clone(arrival), connect: Arc::clone(connect) };
        Self { shared: Arc::clone(shared), handle, session_id: arrival.session_id, stage }
    }

    pub(crate) fn token(&self) -> Token {
        self.handle.token
    }

    /// Makes the login a session, because a server has let the client in.
    pub(crate) fn welcome(&mut self) {
        self.stage = Stage::Session { since: Instant::now() };
    }

    /// Ends the registration of a refused login. The caller sends the event.
    pub(crate) fn forget(mut self) {
        self.stage = Stage::Told;
    }

    /// Ends the registration of a session, and sends its last event.
    pub(crate) fn end(mut self, ending: Ending, said: Said) {
        if let Stage::Session { since } = std::mem::replace(&mut self.stage, Stage::Told) {
            self.leave();
            self.tell_end(ending, said, since.elapsed());
        }
    }

    fn tell_end(&self, Ending { cause, detail }: Ending, said: Said, lasted: Duration) {
        self.shared.events.push(Event::Ended(Ended {
            token: self.token(),
            session_id: self.session_id,
            cause,
            detail,
            server_code: said.server_code,
            reason_string: said.reason_string,
            session_expiry: said.session_expiry,
            traffic: self.handle.meter.read(self.shared.started.1),
            lasted,
        }));
    }

    fn leave(&self) {
        self.shared.table.remove(self.token());
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave();
        let ending = Ending { cause: Reason::ServerShutdown.into(), detail: String::new() };
        match std::mem::replace(&mut self.stage, Stage::Told) {
            Stage::Login { arrival, connect } => {
                let token = Some(self.token());
                let refused = Refused::new(token, &arrival, Some(connect), ending.cause, ending.detail);
                self.shared.events.push(Event::Refused(refused));
            }
            Stage::Session { since } => self.tell_end(ending, Said::default(), since.elapsed()),
            Stage::Told => {}
        }
    }
}

/// The session's claim on its client id. Dropping it gives the claim up.
pub(crate) struct IdPlace {
    shared: Arc<Shared>,
    entry: Entry,
}

impl IdPlace {
    pub(crate) fn enter(shared: &Arc<Shared>, client_id: &str, token: Token) -> Self {
        Self { shared: Arc::clone(shared), entry: shared.table.enter(client_id, token) }
    }
}

impl Drop for IdPlace {
    fn drop(&mut self) {
        self.shared.table.leave(self.entry);
    }
}
