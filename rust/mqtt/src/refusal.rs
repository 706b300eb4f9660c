//! Why a client's first packet does not let it in.

use alloc::string::String;
use core::fmt;

use crate::reader::Wrong;
use crate::{Detail, Reason, Version};

/// Why a client's first packet does not let it in, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// The row of the table: `malformed-connect`, `packet-too-large`, `protocol-version` or
    /// `identifier-rejected`.
    pub reason: Reason,
    /// What is wrong, for people.
    pub detail: Detail,
    /// The byte where it went wrong, counted from 0 at the first byte of the packet.
    pub offset: usize,
    /// The version of the client, once the packet has said it. It decides how the client is answered.
    pub version: Option<Version>,
    /// The client id in a CONNECT of a version that is not served, so that the operator can find the device;
    /// else empty.
    pub client_id: String,
}

impl Refusal {
    /// The code of the CONNACK for this client. `None`: the connection is closed without one.
    ///
    /// A client with an unknown version gets the answer of MQTT 3.1.1 (MQTT-3.1.2-2). Mosquitto does the same.
    #[must_use]
    pub fn connack(&self) -> Option<u8> {
        self.reason.connack(self.version.unwrap_or(Version::Mqtt311))
    }

    /// Whether this is a bridge of Mosquitto that asks for its private protocol, with the high bit of the
    /// level set. After a CONNACK it comes again and asks for the standard one.
    #[must_use]
    pub const fn is_bridge_probe(&self) -> bool {
        matches!(self.detail, Detail::ProtocolLevel { level: 0x83..=0x85, .. })
    }

    pub(crate) const fn new(reason: Reason, wrong: Wrong, version: Option<Version>) -> Self {
        Self { reason, detail: wrong.detail, offset: wrong.offset, version, client_id: String::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.reason.code(), self.offset, self.detail)
    }
}

impl core::error::Error for Refusal {}
