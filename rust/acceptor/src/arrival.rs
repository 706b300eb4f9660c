//! The way of one connection: trust, look, judge, consume, decide, hand over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use proxyproto_codec::Header;

use crate::acceptor::Acceptor;
use crate::addresses::{ClientAddr, PeerAddr};
use crate::late::Event;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::peek::{Look, consume, look};
use crate::pending::Waiting;
use crate::policy::{Decision, decide};
use crate::queue::Connection;
use crate::refusal::Refusal;
use crate::sys;
use crate::trust::{Approach, approach};
use crate::verdict::{Detail, Verdict, judge};

/// How much a first look copies: more than any usual header, less than the payload that may stand behind it.
const FIRST_LOOK: usize = 536;

impl Acceptor {
    /// A new connection. Its header is there already, as a rule (deferred accept), and then nothing need wait.
    pub(crate) fn arrive(&mut self, fd: OwnedFd, peer: PeerAddr, options: &Options, now: Instant) {
        let Some(approach) = approach(&peer, options, now) else {
            return self.refuse(&peer, None, (Outcome::Untrusted, Detail::Plain), 0, now);
        };
        let waiting = Waiting { fd, peer, approach, since: now, seen: 0 };
        let finding = inspect(waiting.fd.as_fd(), approach, false, &mut self.buffer, options);
        self.settle(waiting, finding, options, now);
    }

    /// A late connection has something to show.
    pub(crate) fn look_again(&mut self, event: Event, options: &Options, now: Instant) {
        // It may have been refused or evicted since the event.
        let Some(waiting) = self.late.get(event.token) else { return };
        match inspect(waiting.fd.as_fd(), waiting.approach, event.is_closed, &mut self.buffer, options) {
            Finding { seen, judgement: Judgement::Wait { needed } } => {
                self.late.keep(event.token, seen, needed);
            }
            finding => {
                if let Some(waiting) = self.late.take(event.token) {
                    self.settle(waiting, finding, options, now);
                }
            }
        }
    }

    /// A late connection has run out of time; what is there now is its last word.
    pub(crate) fn expire(&mut self, waiting: Waiting, options: &Options, now: Instant) {
        match inspect(waiting.fd.as_fd(), waiting.approach, false, &mut self.buffer, options) {
            Finding { seen, judgement: Judgement::Wait { .. } } => {
                self.refuse(&waiting.peer, None, (Outcome::Timeout, Detail::Plain), seen, now);
            }
            finding => self.settle(waiting, finding, options, now),
        }
    }

    fn wait(&mut self, waiting: Waiting, needed: usize, options: &Options, now: Instant) {
        while self.late.len() >= options.max_pending {
            let Some(longest) = self.late.take_longest_waiting() else { break };
            self.refuse(&longest.peer, None, (Outcome::PendingOverflow, Detail::Plain), 0, now);
        }
        let peer = waiting.peer.clone();
        if self.late.add(waiting, needed).is_err() {
            // The kernel has no memory to watch one more.
            self.refuse(&peer, None, (Outcome::PendingOverflow, Detail::Plain), 0, now);
        }
    }

    fn settle(&mut self, waiting: Waiting, finding: Finding, options: &Options, now: Instant) {
        match finding.judgement {
            Judgement::Serve(header) => self.serve(waiting, header, finding.seen, options, now),
            Judgement::Refuse(outcome, detail) => {
                self.refuse(&waiting.peer, None, (outcome, detail), finding.seen, now);
            }
            Judgement::Wait { needed } => {
                self.wait(Waiting { seen: finding.seen, ..waiting }, needed, options, now);
            }
        }
    }

    fn serve(
        &mut self,
        waiting: Waiting,
        header: Option<Header>,
        seen: usize,
        options: &Options,
        now: Instant,
    ) {
        let Waiting { fd, peer, .. } = waiting;
        let (outcome, permit) = match decide(header.as_ref(), &peer, options, &self.shared.open, now) {
            Decision::Admit(outcome, permit) => (outcome, permit),
            Decision::Close(outcome) => return self.shared.counters.add(outcome),
            Decision::Refuse(outcome, client) => {
                // Where a rule forbids the client, its header was good, and its bytes say nothing.
                let told = if outcome == Outcome::Malformed { seen } else { 0 };
                return self.refuse(&peer, client, (outcome, Detail::Plain), told, now);
            }
        };
        if let Some(header) = &header {
            // The peer has reset the connection since the look.
            if consume(fd.as_fd(), header.raw().len(), self.is_tcp, &mut self.buffer).is_err() {
                return self.refuse(&peer, None, (Outcome::ClosedEarly, Detail::Plain), 0, now);
            }
        }
        if waiting.seen > 0 && self.is_tcp {
            // A blocking recv of whoever gets it would wait for so much.
            let _ = sys::set_receive_low_water(fd.as_fd(), 1);
        }
        self.shared.counters.add(outcome);
        let connection = Connection { fd, header, peer, permit };
        if let Some(connection) = self.shared.queue.push(connection) {
            self.held.push_back(connection);
        }
    }

    /// Counts a refusal and tells of it; the caller's dropping the connection closes it.
    fn refuse(
        &mut self,
        peer: &PeerAddr,
        client: Option<ClientAddr>,
        (outcome, detail): (Outcome, Detail),
        seen: usize,
        now: Instant,
    ) {
        self.shared.counters.add(outcome);
        if outcome == Outcome::ClosedEarly && seen == 0 {
            // A probe of the port: balancers do it every few seconds.
            return;
        }
        let bytes = self.buffer.get(..seen).unwrap_or_default();
        let refusal = Refusal::new(outcome, (peer.clone(), client), detail, bytes, &self.name);
        self.shared.queue.refuse(refusal, now);
    }
}

/// What a look has shown, and what it means.
struct Finding {
    /// How many bytes are there, in the buffer.
    seen: usize,
    judgement: Judgement,
}

/// A verdict that does not borrow the buffer.
enum Judgement {
    Serve(Option<Header>),
    Wait { needed: usize },
    Refuse(Outcome, Detail),
}

fn inspect(
    fd: BorrowedFd<'_>,
    approach: Approach,
    is_closed: bool,
    buffer: &mut Vec<u8>,
    options: &Options,
) -> Finding {
    if approach == Approach::Direct {
        return Finding { seen: 0, judgement: Judgement::Serve(None) };
    }
    let most = options.codec.max_header_size.get().max(FIRST_LOOK);
    buffer.resize(most.max(buffer.len()), 0);
    let mut finding = inspect_first(fd, approach, is_closed, buffer, FIRST_LOOK, options);
    if finding.seen >= FIRST_LOOK && matches!(finding.judgement, Judgement::Wait { .. }) {
        finding = inspect_first(fd, approach, is_closed, buffer, most, options);
    }
    finding
}

fn inspect_first(
    fd: BorrowedFd<'_>,
    approach: Approach,
    is_closed: bool,
    buffer: &mut [u8],
    most: usize,
    options: &Options,
) -> Finding {
    let most = most.min(buffer.len());
    let buffer = buffer.get_mut(..most).unwrap_or_default();
    let (seen, is_closed) = match look(fd, buffer) {
        // A full buffer may not be all that came before the end.
        Look::Bytes(seen) => (seen, is_closed && seen < most),
        Look::Closed | Look::Broken => (0, true),
    };
    let judgement = match judge(approach, buffer.get(..seen).unwrap_or_default(), is_closed, options.codec) {
        Verdict::Serve(header) => Judgement::Serve(header.map(|header| header.to_owned())),
        Verdict::Wait { needed } => Judgement::Wait { needed },
        Verdict::Refuse(outcome, detail) => Judgement::Refuse(outcome, detail),
    };
    Finding { seen, judgement }
}
