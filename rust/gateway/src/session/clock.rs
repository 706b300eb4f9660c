//! One timer for all deadlines of a session. A new deadline can make it fire earlier. It is set to a later time only when it
//! has fired, because packets are more frequent than timeouts.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that may fire too early, and never too late.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Boxed, because a timer must not move and a session without deadlines has none.
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the timer fires; `None` means never.
    fires: Option<Instant>,
    /// The timer has been set, and no task is registered with it yet.
    is_new: bool,
}

impl Clock {
    /// Makes the timer fire at `when` or earlier.
    pub(crate) fn at_most(&mut self, when: Instant) {
        if self.fires.is_some_and(|fires| fires <= when) {
            return;
        }
        self.fires = Some(when);
        self.is_new = true;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(when),
            None => self.sleep = Some(Box::pin(sleep_until(when))),
        }
    }

    /// Ready when the timer has fired. The caller must then set the remaining deadlines again.
    pub(crate) fn poll_fired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(sleep), Some(_)) = (&mut self.sleep, self.fires) else { return Poll::Pending };
        if !self.is_new && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.is_new = false;
        // Within tokio's budget, a task that has used it up would not be registered, and never be woken.
        let fired = Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx);
        if fired.is_ready() {
            self.fires = None;
        }
        fired
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_counts_and_is_forgotten_once_it_has_fired() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = Clock::default();
        for seconds in [30, 10, 20] {
            clock.at_most(at(seconds));
        }
        poll_fn(|cx| clock.poll_fired(cx)).await;
        assert_eq!(Instant::now(), at(10));
        clock.at_most(at(20));
        poll_fn(|cx| clock.poll_fired(cx)).await;
        assert_eq!(Instant::now(), at(20));
        let fires_again =
            tokio::time::timeout(Duration::from_secs(60), poll_fn(|cx| clock.poll_fired(cx))).await;
        assert!(fires_again.is_err());
    }
}
