//! Takes the connections of a listener and gives each to a worker.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use proxyproto_acceptor::{Closed, Connection, Listener, LocalAddr};
use proxyproto_mqtt::Reason;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::task::yield_now;

use crate::arrival::{Arrival, SessionId};
use crate::events::{Event, ListenerReport, Refused};
use crate::facts::Facts;
use crate::listening::Listening;
use crate::session::{Arrived, serve};
use crate::shared::Shared;
use crate::sys;
use crate::worker::Seats;

/// The number of connections that are taken before other tasks of this worker have their turn.
const MOST_AT_ONCE: usize = 64;

/// A listener, and what its connections need.
pub(crate) struct Intake {
    pub(crate) listener: Arc<Listener>,
    pub(crate) listening: Arc<Listening>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) seats: Arc<Seats>,
}

impl Intake {
    /// Takes connections until the listener is closed, or drained and empty.
    pub(crate) async fn run(self, wake: OwnedFd) -> io::Result<()> {
        let wake = sys::watch_readable(wake)?;
        loop {
            let mut readable = wake.readable().await?;
            self.report();
            match self.listener.take(MOST_AT_ONCE) {
                Err(Closed::Closed | Closed::Inherited) => return Ok(()),
                Ok(connections) if connections.is_empty() => {
                    // Refusals keep the descriptor readable when all connections have been taken. tokio notices only the
                    // moment at which a descriptor becomes readable.
                    if !is_readable(wake.get_ref()) {
                        readable.clear_ready();
                    }
                }
                Ok(connections) => connections.into_iter().for_each(|connection| self.seat(connection)),
            }
            drop(readable);
            yield_now().await;
        }
    }

    /// Gives a connection to the worker with the fewest connections.
    fn seat(&self, connection: Connection) {
        let Connection { fd, header, peer, permit, .. } = connection;
        let arrival = Arrival {
            session_id: SessionId::random(),
            listener: Arc::clone(&self.listening.name),
            header,
            peer,
            local: self.listener.local_addr().clone(),
            at: SystemTime::now(),
            facts: Facts::default(),
        };
        if self.shared.is_closing.load(Ordering::Acquire) {
            return;
        }
        let most = self.shared.most_connections;
        if self.seats.loads().iter().sum::<usize>() >= most {
            let detail = format!(
                "{most} connections take the descriptors of this process: raise LimitNOFILE= (ulimit -n)"
            );
            return self.turn_away(arrival, detail);
        }
        let guest = match self.listening.begin() {
            Ok(guest) => guest,
            Err(count) => return self.turn_away(arrival, format!("{count} have not logged in yet")),
        };
        let Some((seat, runtime)) = self.seats.take() else { return };
        let arrived = Arrived {
            fd,
            is_tcp: matches!(self.listener.local_addr(), LocalAddr::Ip(_)),
            arrival,
            guest,
            listening: Arc::clone(&self.listening),
            permit,
            seat,
        };
        runtime.spawn(serve(arrived, Arc::clone(&self.shared)));
    }

    fn turn_away(&self, arrival: Arrival, detail: String) {
        let refused = Refused::new(None, &Arc::new(arrival), None, Reason::Busy.into(), detail);
        self.shared.events.offer(Event::Refused(refused));
    }

    /// Sends the listener's refusals as an event.
    fn report(&self) {
        let Ok(refusals) = self.listener.take_refusals() else { return };
        if refusals.records.is_empty() && refusals.lines.is_empty() {
            return;
        }
        let listener = Arc::clone(&self.listening.name);
        self.shared.events.offer(Event::Listener(ListenerReport { listener, refusals }));
    }
}

fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    // If poll fails, the caller waits and looks again.
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
}
