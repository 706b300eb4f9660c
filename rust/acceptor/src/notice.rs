//! The messages in the log about a listener itself.

use crate::log_lines::Severity;
use crate::setting::{Setting, Wording};

/// A message about a listener itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// No list of proxies was given.
    BelievesEverybody,
    /// `max_pending` is larger than the process has descriptors for.
    FewDescriptors { most: usize, wanted: usize, limit: usize },
    /// The process or the system is out of descriptors or memory.
    Exhausted { error: String },
    /// The system forbids accepting, or refuses it for an unknown reason.
    Forbidden { error: String },
    /// The listening socket is broken.
    Broken { error: String },
}

impl Notice {
    pub(crate) fn severity(&self) -> Severity {
        match self {
            Self::BelievesEverybody | Self::FewDescriptors { .. } => Severity::Warning,
            Self::Exhausted { .. } | Self::Forbidden { .. } | Self::Broken { .. } => Severity::Error,
        }
    }

    /// The text behind the listener's name, which is its subject.
    pub(crate) fn text(&self, name: Wording) -> String {
        match self {
            Self::BelievesEverybody => format!(
                "believes the PROXY header of every peer: set {} to the addresses of your proxies, or whoever reaches this \
                 port can claim to be anybody",
                name(Setting::Trusted)
            ),
            Self::FewDescriptors { most, wanted, limit } => format!(
                "lets {most} connections wait for their header, not {wanted}: this process may have {limit} open files, and \
                 half of them are for connections that are served. Raise LimitNOFILE= (ulimit -n), or lower {}",
                name(Setting::MaxPending)
            ),
            Self::Exhausted { error } => {
                let limit = name(Setting::MaxConnections);
                format!("{}: raise LimitNOFILE= (ulimit -n), or set {limit}", cannot_accept(error))
            }
            Self::Forbidden { error } => format!(
                "{}: the system forbids it: look for a rule of a firewall or of a security module (SELinux, AppArmor, \
                 seccomp) about this program",
                cannot_accept(error)
            ),
            Self::Broken { error } => format!("is broken and closes: {error}"),
        }
    }
}

fn cannot_accept(error: &str) -> String {
    format!("cannot accept: {error}. Connections wait in the kernel, and it is tried again every 100 ms")
}
