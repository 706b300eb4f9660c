//! The lines of the log as `tracing` events (feature `tracing`).

use tracing::{error, warn};

use crate::log_lines::{LogLine, Severity};

/// Emits one line as an event.
pub(crate) fn say(line: &LogLine) {
    match line.severity() {
        Severity::Error => error!(target: TARGET, "{line}"),
        Severity::Warning => warn!(target: TARGET, "{line}"),
    }
}

const TARGET: &str = "proxyproto_acceptor";
