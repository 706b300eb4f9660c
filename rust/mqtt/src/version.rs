//! The versions of MQTT.

use core::fmt;

/// A version of MQTT that this crate reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1, whose protocol name is `MQIsdp`.
    Mqtt31,
    /// MQTT 3.1.1.
    Mqtt311,
    /// MQTT 5.
    Mqtt5,
}

impl Version {
    /// All versions, the oldest first.
    pub const ALL: [Self; 3] = [Self::Mqtt31, Self::Mqtt311, Self::Mqtt5];

    /// The number in the name: `"3.1.1"`.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Mqtt31 => "3.1",
            Self::Mqtt311 => "3.1.1",
            Self::Mqtt5 => "5",
        }
    }

    /// The protocol level in a CONNECT.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::Mqtt31 => 3,
            Self::Mqtt311 => 4,
            Self::Mqtt5 => 5,
        }
    }
}

/// The name for people: `MQTT 3.1.1`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MQTT {}", self.number())
    }
}
