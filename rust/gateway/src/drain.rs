//! Ends the sessions of a gateway one after the other.

use std::sync::Arc;
use std::time::Duration;

use proxyproto_mqtt::Reason;
use tokio::time::{Instant, sleep_until};

use crate::registry::Ending;
use crate::shared::Shared;

/// Ends all sessions, spread evenly over this time. Sessions that begin meanwhile end with the last one.
pub(crate) async fn drain(shared: Arc<Shared>, over: Duration) {
    let start = Instant::now();
    let handles = shared.table.all();
    let count = u32::try_from(handles.len()).unwrap_or(u32::MAX).max(1);
    for (number, handle) in (1..).zip(handles) {
        sleep_until(start + over.mul_f64(f64::from(number) / f64::from(count))).await;
        handle.end(ending());
    }
    sleep_until(start + over).await;
    shared.table.all().iter().for_each(|handle| handle.end(ending()));
}

fn ending() -> Ending {
    Ending { cause: Reason::ServerShutdown.into(), detail: String::new() }
}
