//! The way of one connection: trust, look, judge, decide, consume. Every connection takes it, whether the background thread
//! accepts it or, on demand, the thread that asks for one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use proxyproto_codec::Header;

use crate::addresses::{ClientAddr, PeerAddr};
use crate::cause::Cause;
use crate::descriptors;
use crate::listener::Shared;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::peek::{Look, consume, look};
use crate::pending::Waiting;
use crate::policy::{Admission, decide};
use crate::queue::Connection;
use crate::refusal::Refusal;
use crate::sys;
use crate::trust::{Approach, approach};
use crate::verdict::{Verdict, judge};

/// How many bytes the first look copies: more than a usual header has, and less than the payload that may follow it.
const FIRST_LOOK: usize = 536;

/// Lets in or refuses connections of one listener, at one moment and under the options of that moment.
pub(crate) struct Doorkeeper<'a> {
    shared: &'a Shared,
    options: Arc<Options>,
    now: Instant,
    /// Where a look puts the bytes. All connections of a thread share it.
    buffer: &'a mut Vec<u8>,
}

impl<'a> Doorkeeper<'a> {
    pub(crate) fn new(shared: &'a Shared, now: Instant, buffer: &'a mut Vec<u8>) -> Self {
        Self { shared, options: shared.options(), now, buffer }
    }

    /// Lets a new connection in, lets it wait, or refuses it. Usually its header is there already (deferred accept), and it
    /// need not wait.
    pub(crate) fn arrive(&mut self, fd: OwnedFd, peer: PeerAddr) -> Option<Connection> {
        let approach = match approach(&peer, &self.options, self.now) {
            Ok(approach) => approach,
            Err(cause) => {
                self.refuse(&peer, None, cause, 0);
                return None;
            }
        };
        let waiting = Waiting::new(fd, peer, approach, self.now);
        let (seen, verdict) = self.inspect(waiting.fd.as_fd(), approach, false);
        if let Verdict::Wait { low_water, .. } = verdict {
            self.wait(waiting, low_water);
            return None;
        }
        self.settle(waiting, seen, verdict)
    }

    /// Looks again at a late connection. `is_closed`: no more bytes will come.
    pub(crate) fn look_again(&mut self, token: u64, is_closed: bool) -> Option<Connection> {
        let shared = self.shared;
        let mut late = shared.late();
        // It may have gone since the event.
        let waiting = late.get(token)?;
        let (seen, verdict) = self.inspect(waiting.fd.as_fd(), waiting.approach, is_closed);
        if let Verdict::Wait { low_water, .. } = verdict {
            late.keep(token, low_water);
            return None;
        }
        let waiting = late.take(token)?;
        drop(late);
        self.settle(waiting, seen, verdict)
    }

    /// Ends the wait of a late connection that has run out of time. What has come by now decides.
    pub(crate) fn expire(&mut self, waiting: Waiting) -> Option<Connection> {
        let (seen, verdict) = self.inspect(waiting.fd.as_fd(), waiting.approach, false);
        if let Verdict::Wait { needed, .. } = verdict {
            let cause = match sys::receive_buffer_size(waiting.fd.as_fd()) {
                // About half of the buffer is the kernel's overhead, which counts too.
                Ok(size) if seen.saturating_add(needed) > size / 2 => Cause::ReceiveBuffer { size },
                _ => Cause::Timeout { seen, needed, limit: self.options.header_timeout.get() },
            };
            self.refuse(&waiting.peer, None, cause, seen);
            return None;
        }
        self.settle(waiting, seen, verdict)
    }

    /// Refuses a late connection to make room for others.
    pub(crate) fn evict(&mut self, waiting: &Waiting, cause: Cause) {
        self.refuse(&waiting.peer, None, cause, 0);
    }

    fn wait(&mut self, waiting: Waiting, low_water: usize) {
        let max_pending = descriptors::most_pending(self.options.max_pending);
        let peer = waiting.peer.clone();
        let mut late = self.shared.late();
        let longest = if late.len() >= max_pending { late.take_longest_waiting() } else { None };
        let added = late.add(waiting, low_water);
        drop(late);
        if let Some(longest) = longest {
            self.evict(&longest, Cause::PendingOverflow { max_pending });
        }
        if added.is_err() {
            // The kernel has no memory to watch one more.
            self.refuse(&peer, None, Cause::NoMemory, 0);
        }
        self.shared.deadline_has_changed();
    }

    /// Acts on the verdict. The first `seen` bytes of the connection are in the buffer.
    fn settle(&mut self, waiting: Waiting, seen: usize, verdict: Verdict) -> Option<Connection> {
        match verdict {
            Verdict::Serve(header) => self.serve(waiting, header, seen),
            Verdict::Refuse(cause) => {
                self.refuse(&waiting.peer, None, cause, seen);
                None
            }
            // The callers have dealt with this.
            Verdict::Wait { .. } => None,
        }
    }

    fn serve(&mut self, waiting: Waiting, header: Option<Header>, seen: usize) -> Option<Connection> {
        let is_tcp = self.shared.is_tcp();
        let Waiting { fd, peer, low_water, since, .. } = waiting;
        if header.is_some() {
            self.shared.counters.headers.add(self.now.saturating_duration_since(since));
        }
        let admission = match decide(header.as_ref(), &peer, &self.options, &self.shared.open, self.now) {
            Ok(admission) => admission,
            Err((cause, client)) => {
                // If a rule forbids the client, the header was good, and its bytes are no news.
                let told = if cause == Cause::ImpossibleClient { seen } else { 0 };
                self.refuse(&peer, client, cause, told);
                return None;
            }
        };
        if let Some(header) = &header {
            // The peer has reset the connection since the look.
            if consume(fd.as_fd(), header.raw().len(), is_tcp, self.buffer).is_err() {
                self.refuse(&peer, None, Cause::Reset, 0);
                return None;
            }
        }
        let (outcome, permit) = match admission {
            Admission::Serve(outcome, permit) => (outcome, permit),
            // The header is consumed by now. If it were unread, the kernel would end the check with a reset.
            Admission::Close(outcome) => {
                self.shared.counters.add(outcome);
                return None;
            }
        };
        if outcome == Outcome::Local && matches!(look(fd.as_fd(), &mut [0]), Look::Closed | Look::Broken) {
            // A check that has ended already: it only wanted to connect. In the application it would only cause errors.
            self.shared.counters.add(outcome);
            return None;
        }
        if low_water > 1 {
            // Otherwise a blocking recv of the application would wait for so many bytes.
            let _ = sys::set_receive_low_water(fd.as_fd(), 1);
        }
        self.shared.counters.add(outcome);
        let has_payload = seen > header.as_ref().map_or(0, |header| header.raw().len());
        Some(Connection { fd, header, peer, permit, has_payload })
    }

    /// Counts a refusal and reports it. The caller closes the connection by dropping it.
    fn refuse(&mut self, peer: &PeerAddr, client: Option<ClientAddr>, cause: Cause, seen: usize) {
        self.shared.counters.add(cause.outcome());
        if cause.is_probe() {
            return;
        }
        let bytes = self.buffer.get(..seen).unwrap_or_default();
        let refusal = Refusal::new(cause, (peer.clone(), client), bytes, &self.shared.name);
        if self.shared.queue.refuse(refusal, self.now) {
            self.shared.deadline_has_changed();
        }
    }

    /// Looks at the first bytes, puts them into the buffer and judges them. Returns their number and the verdict.
    fn inspect(&mut self, fd: BorrowedFd<'_>, approach: Approach, is_closed: bool) -> (usize, Verdict) {
        if approach == Approach::Direct {
            return (0, Verdict::Serve(None));
        }
        let most = self.options.codec.max_header_size.get().max(FIRST_LOOK);
        self.buffer.resize(most.max(self.buffer.len()), 0);
        let (seen, verdict) = self.inspect_first(fd, approach, is_closed, FIRST_LOOK);
        if seen >= FIRST_LOOK && matches!(verdict, Verdict::Wait { .. }) {
            return self.inspect_first(fd, approach, is_closed, most);
        }
        (seen, verdict)
    }

    fn inspect_first(
        &mut self,
        fd: BorrowedFd<'_>,
        approach: Approach,
        is_closed: bool,
        most: usize,
    ) -> (usize, Verdict) {
        let most = most.min(self.buffer.len());
        let buffer = self.buffer.get_mut(..most).unwrap_or_default();
        let (seen, is_closed) = match look(fd, buffer) {
            // If the buffer is full, more bytes may have come before the end.
            Look::Bytes(seen) => (seen, is_closed && seen < most),
            Look::Closed | Look::Broken => (0, true),
        };
        let bytes = buffer.get(..seen).unwrap_or_default();
        (seen, judge(approach, bytes, is_closed, self.options.codec))
    }
}
