//! What a listener has to say of itself.

use crate::log_lines::Severity;
use crate::setting::{Setting, Wording};

/// What a listener has to say of itself, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// There is no list of proxies.
    BelievesEverybody,
    /// `max_pending` is more than the process may have descriptors for.
    FewDescriptors { most: usize, wanted: usize, limit: usize },
    /// The process or the system is out of descriptors or memory, as the error says.
    Exhausted { error: String },
    /// The system does not let us accept, or refuses for a reason that we do not know.
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

    /// A predicate whose subject is the listener.
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
