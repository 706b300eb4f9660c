//! Letting connections gather while nobody would come for them.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::listener::Shared;

/// By so much Linux lets a thread sleep longer than it asked for.
const TIMER_SLACK: Duration = Duration::from_micros(50);

/// So long after it lingered last, a listener has given up its turn.
const TURN: Duration = Duration::from_millis(5);

/// What one listener's acceptor knows for it.
#[derive(Debug, Default)]
pub(crate) struct Linger {
    /// The last batch was full: the next one is there already.
    pub(crate) is_pressed: bool,
}

impl Linger {
    /// Waits while the listener's taker is busy.
    ///
    /// It blocks the thread, half a millisecond at most: each new connection would wake a wait by the runtime's clock,
    /// which knows whole milliseconds only, and to be woken is what costs. With 32 clients on one core a loop of asyncio
    /// is interrupted 0.2 times a connection and not 0.6, and the thread takes 9 us a connection and not 19.
    #[expect(
        clippy::disallowed_methods,
        reason = "one listener at a time, while it has nothing better to do"
    )]
    pub(crate) fn wait(&self, listener: &Arc<Shared>) {
        let now = Instant::now();
        let time = listener.queue.untaken_for(now).saturating_sub(TIMER_SLACK);
        if !self.is_pressed && !time.is_zero() && takes_turn(listener, now) {
            thread::sleep(time);
        }
    }
}

/// Whether no other listener lingers these days: on their one thread it would add up.
fn takes_turn(listener: &Arc<Shared>, now: Instant) -> bool {
    thread_local! {
        static LAST: Cell<Option<(*const Shared, Instant)>> = const { Cell::new(None) };
    }
    let listener = Arc::as_ptr(listener);
    let is_anothers = LAST.get().is_some_and(|(last, at)| last != listener && now < at + TURN);
    if !is_anothers {
        LAST.set(Some((listener, now)));
    }
    !is_anothers
}
