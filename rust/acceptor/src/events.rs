//! The lines of the log as `tracing` events (feature `tracing`).

use tracing::{error, warn};

use crate::refusal::{LogLine, Severity};

/// Says one line, in an event of this crate's.
pub(crate) fn say(line: &LogLine) {
    let text = &line.text;
    match line.severity {
        Severity::Error => error!(target: TARGET, "{text}"),
        Severity::Warning => warn!(target: TARGET, "{text}"),
    }
}

const TARGET: &str = "proxyproto_acceptor";
