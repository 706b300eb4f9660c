//! The loop with a backlog and a clock that the test controls. The tests assert the order of things, and never a time.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::addresses::{LocalAddr, PeerAddr, UnixName};
use crate::backlog::Backlog;
use crate::options::Options;
use crate::outcome::Outcome;
use crate::watch::Watch;

/// Not an internet address, so the loop takes its connections for UNIX sockets: it defers nothing, and consumes headers by
/// copy.
const UNIX: &str = "unix";

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 1883\r\n";

thread_local! {
    static NOW: Cell<Instant> = Cell::new(Instant::now());
    /// How much time passes between two looks at the clock.
    static STEP: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn clock() -> Instant {
    let now = NOW.get() + STEP.get();
    NOW.set(now);
    now
}

fn pass(time: Duration) {
    NOW.set(NOW.get() + time);
}

/// What each backlog of a test has done, in order.
type Journal = Arc<Mutex<Vec<String>>>;

/// What a backlog gives next.
enum Next {
    Connection(OwnedFd),
    Error(End),
}

struct FakeBacklog {
    name: &'static str,
    queue: Mutex<VecDeque<Next>>,
    /// There is always one more connection.
    is_endless: bool,
    journal: Journal,
    watch: Watch,
    /// Readable while there is something next, as a listening socket is.
    readable: OwnedFd,
}

impl FakeBacklog {
    fn next(&self) -> MutexGuard<'_, VecDeque<Next>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: &str) {
        self.journal.lock().unwrap().push(format!("{} {what}", self.name));
    }

    fn show(&self, is_readable: bool) {
        let _ = rustix::io::read(&self.readable, &mut [0; 8]);
        if is_readable {
            rustix::io::write(&self.readable, &1_u64.to_ne_bytes()).unwrap();
        }
    }
}

impl Backlog for Arc<FakeBacklog> {
    fn accept(&self) -> Result<(OwnedFd, PeerAddr), End> {
        let next = self.next().pop_front();
        self.show(self.is_endless || !self.next().is_empty());
        match next {
            Some(Next::Error(end)) => Err(end),
            Some(Next::Connection(fd)) => {
                self.note("accepts");
                Ok((fd, PeerAddr::Unix(UnixName::default())))
            }
            None if self.is_endless => {
                self.note("accepts");
                Ok((silent().0, PeerAddr::Ip("203.0.113.9:1".parse().unwrap())))
            }
            None => Err(End::Empty),
        }
    }

    fn arm(&self) {
        self.note("arms");
        self.watch.arm(self.readable.as_fd()).unwrap();
    }

    fn stop(&self) {
        self.note("stops");
    }

    fn defer_accept(&self, on: bool) {
        self.note(if on { "defers" } else { "defers no more" });
    }

    fn close(&self) {}

    fn let_go(&self) {}

    fn duplicate(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

/// A listener whose turns the test takes.
struct Bench {
    acceptor: Acceptor,
    shared: Arc<Shared>,
    backlog: Arc<FakeBacklog>,
    journal: Journal,
}

impl Bench {
    fn new(name: &'static str, journal: &Journal) -> Self {
        Self::with(name, UNIX, journal, false)
    }

    /// A listener with an endless flood of connections, which it refuses.
    fn flooded(name: &'static str, journal: &Journal) -> Self {
        Self::with(name, UNIX, journal, true)
    }

    fn with(name: &'static str, local: &str, journal: &Journal, is_endless: bool) -> Self {
        let watch = Watch::new().unwrap();
        let readable = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        watch.add_listening(readable.as_fd()).unwrap();
        let backlog = Arc::new(FakeBacklog {
            name,
            queue: Mutex::default(),
            is_endless,
            journal: Arc::clone(journal),
            watch: watch.clone(),
            readable,
        });
        backlog.show(is_endless);
        let local = match local.parse() {
            Ok(address) => LocalAddr::Ip(address),
            Err(_) => LocalAddr::Unix(UnixName::default()),
        };
        let options = Options { trusted: Some(std::iter::empty().collect()), ..Options::default() };
        let shared = Shared::new(Box::new(Arc::clone(&backlog)), watch, local, 64, options).unwrap();
        let shared = Arc::new(shared);
        let acceptor = Acceptor::without_runtime(Arc::clone(&shared), clock);
        Self { acceptor, shared, backlog, journal: Arc::clone(journal) }
    }

    /// Puts this into the kernel's queue.
    fn next(&self, next: Next) {
        self.backlog.next().push_back(next);
        self.backlog.show(true);
    }

    /// Puts a connection whose header has begun into the kernel's queue, and gives its peer.
    fn begin(&self) -> UnixStream {
        let (connection, peer) = saying(b"PROXY TC");
        self.next(connection);
        peer
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.shared.counters.snapshot().find(|(other, _)| *other == outcome).unwrap().1
    }

    fn lines(&self) -> Vec<String> {
        self.shared.queue.take_refusals(clock()).0.lines.iter().map(ToString::to_string).collect()
    }

    /// What has been noted since the last time.
    fn noted(&self) -> Vec<String> {
        std::mem::take(&mut *self.journal.lock().unwrap())
    }

    /// Takes turns until there is nothing more to do at once. Returns their number.
    fn turns(&mut self) -> usize {
        let mut turns = 1;
        while self.acceptor.turn() == Turn::More {
            turns += 1;
            assert!(turns < 10_000, "it never comes to rest");
        }
        turns
    }
}

/// A connection whose peer has sent nothing, and the peer.
fn silent() -> (OwnedFd, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours.into(), peer)
}

/// A connection whose peer has sent `bytes`, and the peer.
fn saying(bytes: &[u8]) -> (Next, UnixStream) {
    let (ours, mut peer) = silent();
    peer.write_all(bytes).unwrap();
    (Next::Connection(ours), peer)
}

#[test]
fn a_flood_of_one_listener_leaves_the_others_their_turn() {
    let journal = Journal::default();
    let mut flooded = Bench::flooded("A", &journal);
    let mut quiet = Bench::new("B", &journal);
    let (connection, _peer) = saying(V1);
    quiet.next(connection);
    flooded.noted();
    for _ in 0..3 {
        assert_eq!(flooded.acceptor.turn(), Turn::More);
        quiet.turns();
    }
    let accepted: String =
        journal.lock().unwrap().iter().filter_map(|entry| entry.strip_suffix(" accepts")).collect();
    assert_eq!(accepted, ["A".repeat(MAX_STEPS), "B".into(), "A".repeat(2 * MAX_STEPS)].concat());
}

#[test]
fn the_runtime_gives_the_others_their_turn_too() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _runtime = runtime.enter();
    let journal = Journal::default();
    let [flooded, quiet] = [("A", true), ("B", false)].map(|(name, is_endless)| {
        let mut bench = Bench::with(name, UNIX, &journal, is_endless);
        bench.acceptor.events =
            Some(sys::register_readable(bench.shared.watch.descriptor().unwrap()).unwrap());
        bench
    });
    let (connection, _peer) = saying(V1);
    quiet.next(connection);
    for bench in [flooded.acceptor, quiet.acceptor] {
        runtime.spawn(bench.run());
    }
    let count = |name: &str| {
        let accepts = format!("{name} accepts");
        journal.lock().unwrap().iter().filter(|entry| **entry == accepts).count()
    };
    runtime.block_on(async {
        while count("B") == 0 {
            tokio::task::yield_now().await;
        }
    });
    // The flood is endless, so without turns this test would never end.
    assert!(count("A") <= 4 * MAX_STEPS, "{} of A before the one of B", count("A"));
    flooded.shared.enter(Phase::Closed);
    quiet.shared.enter(Phase::Closed);
}

#[test]
fn a_turn_is_bounded_by_time_too() {
    let journal = Journal::default();
    let mut flooded = Bench::flooded("A", &journal);
    flooded.noted();
    STEP.set(MAX_TIME / 4);
    assert_eq!(flooded.acceptor.turn(), Turn::More);
    let accepted = flooded.noted().iter().filter(|entry| entry.ends_with("accepts")).count();
    assert!((1..=4).contains(&accepted), "{accepted}");
}

#[test]
fn deadlines_are_taken_in_batches() {
    let count = 5 * MAX_STEPS;
    let mut bench = Bench::new("A", &Journal::default());
    let _peers: Vec<_> = (0..count).map(|_| bench.begin()).collect();
    bench.turns();
    assert_eq!(bench.shared.late().len(), count);
    pass(Duration::from_secs(5));
    assert_eq!(bench.acceptor.turn(), Turn::More);
    assert_eq!(bench.count(Outcome::Timeout), MAX_STEPS as u64);
    bench.turns();
    assert_eq!(bench.count(Outcome::Timeout), count as u64);
}

#[test]
fn with_less_room_those_who_are_too_many_go_in_batches() {
    let mut bench = Bench::new("A", &Journal::default());
    let _peers: Vec<_> = (0..100).map(|_| bench.begin()).collect();
    bench.turns();
    bench.shared.set_options(Options::default().max_pending(50));
    for waiting in [84, 68, 52, 50] {
        bench.acceptor.turn();
        assert_eq!(bench.shared.late().len(), waiting);
    }
    let _one_more = bench.begin();
    bench.turns();
    assert_eq!((bench.shared.late().len(), bench.count(Outcome::PendingOverflow)), (50, 51));
}

#[test]
fn whoever_closes_a_listener_closes_its_late_connections() {
    let mut bench = Bench::new("A", &Journal::default());
    let _peers: Vec<_> = (0..100).map(|_| bench.begin()).collect();
    bench.turns();
    assert_eq!(bench.shared.late().len(), 100);
    bench.shared.close();
    assert_eq!(bench.shared.late().len(), 0, "left to the thread");
    assert_eq!(bench.acceptor.turn(), Turn::Over);
}

#[test]
fn connections_gather_until_what_is_ready_has_been_taken() {
    let mut bench = Bench::new("A", &Journal::default());
    assert_eq!(bench.noted(), ["A arms"]);
    let (first, _first_peer) = saying(V1);
    bench.next(first);
    bench.turns();
    assert_eq!(bench.noted(), ["A accepts"]);
    let (second, _second_peer) = saying(V1);
    bench.next(second);
    bench.turns();
    assert_eq!(bench.noted(), [""; 0], "nobody has come for the first");
    let taken = bench.shared.queue.take(8);
    assert!(taken.wants_more && taken.connections.len() == 1);
    bench.shared.backlog.arm();
    bench.turns();
    assert_eq!(bench.noted(), ["A arms", "A accepts"]);
    // A taker that stays away does not keep the others out.
    let (third, _third_peer) = saying(V1);
    bench.next(third);
    pass(MAX_GATHERING);
    bench.turns();
    assert_eq!(bench.noted(), ["A accepts"]);
}

#[test]
fn out_of_descriptors_the_longest_waiting_make_room_at_once() {
    let mut bench = Bench::new("A", &Journal::default());
    let _peers: Vec<_> = (0..2 * MAX_STEPS).map(|_| bench.begin()).collect();
    bench.turns();
    let exhausted = || Next::Error(End::Exhausted(io::Error::from_raw_os_error(libc::EMFILE)));
    bench.next(exhausted());
    let (good, _peer) = saying(V1);
    bench.next(good);
    bench.turns();
    assert_eq!(bench.count(Outcome::PendingOverflow), MAX_STEPS as u64);
    assert_eq!(bench.count(Outcome::V1), 1, "the good connection came in without a pause");
    assert_eq!(bench.shared.counters.pauses(), 0);
    assert_eq!(bench.shared.late().len(), MAX_STEPS);
}

#[test]
fn a_refusal_of_the_system_is_told_as_what_it_is_and_tried_again() {
    let cases = [
        (End::Exhausted(io::Error::from_raw_os_error(libc::EMFILE)), "raise LimitNOFILE="),
        (End::Forbidden(io::Error::from_raw_os_error(libc::EPERM)), "the system forbids it"),
        (End::Forbidden(io::Error::from_raw_os_error(libc::EACCES)), "the system forbids it"),
    ];
    for (end, expected) in cases {
        let mut bench = Bench::new("A", &Journal::default());
        bench.next(Next::Error(end));
        let (good, _peer) = saying(V1);
        bench.next(good);
        bench.turns();
        let lines = bench.lines();
        assert!(lines.len() == 1 && lines[0].contains(expected), "{lines:?}");
        assert_eq!(bench.count(Outcome::V1), 0);
        pass(PAUSE);
        bench.turns();
        assert_eq!(bench.count(Outcome::V1), 1);
        assert_eq!(bench.shared.counters.pauses(), 1);
    }
}

#[test]
fn a_drain_takes_what_the_kernel_holds_back_and_then_stops() {
    let mut bench = Bench::with("A", "192.0.2.9:1883", &Journal::default(), false);
    bench.turns();
    bench.noted();
    bench.shared.enter(Phase::Draining);
    bench.turns();
    assert_eq!(bench.noted(), ["A defers no more", "A arms"]);
    pass(HAND_OVER / 2);
    let (late, _peer) = saying(V1);
    bench.next(late);
    bench.turns();
    assert_eq!(bench.noted(), ["A accepts", "A arms"]);
    pass(HAND_OVER / 2);
    assert_eq!(bench.acceptor.turn(), Turn::Over);
    assert_eq!(bench.noted(), ["A arms", "A stops"]);
}

#[test]
fn a_drain_ends_whatever_keeps_coming() {
    let mut bench = Bench::flooded("A", &Journal::default());
    bench.shared.enter(Phase::Draining);
    let backlog_length = bench.shared.backlog_length;
    for _ in 0..=backlog_length / MAX_STEPS {
        bench.acceptor.turn();
    }
    assert_eq!(bench.noted().last().unwrap(), "A stops");
}

#[test]
fn an_adopted_backlog_is_left_to_its_other_holders() {
    let bench = Bench::new("A", &Journal::default());
    drop(bench.acceptor);
    let mut shared = Arc::into_inner(bench.shared).unwrap();
    shared.bound_by_us = false;
    let shared = Arc::new(shared);
    let mut acceptor = Acceptor::without_runtime(Arc::clone(&shared), clock);
    shared.enter(Phase::Draining);
    assert_eq!(acceptor.turn(), Turn::Over);
    assert!(!bench.journal.lock().unwrap().iter().any(|entry| entry == "A stops"));
}
