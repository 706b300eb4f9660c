//! Which versions of MQTT are served.

use core::fmt;

use crate::Version;

/// A set of versions.
///
/// ```
/// use proxyproto_mqtt::{Version, Versions};
///
/// let versions = Versions::of(&[Version::Mqtt311, Version::Mqtt5]);
/// assert!(versions.contains(Version::Mqtt5) && !versions.contains(Version::Mqtt31));
/// assert_eq!(versions.to_string(), "MQTT 3.1.1 and 5 are served");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Versions(u8);

impl Versions {
    /// All three.
    pub const ALL: Self = Self::of(&Version::ALL);

    /// The set of these.
    #[must_use]
    pub const fn of(mut versions: &[Version]) -> Self {
        let mut set = 0;
        while let [version, rest @ ..] = versions {
            set |= 1 << *version as u8;
            versions = rest;
        }
        Self(set)
    }

    /// Whether the version is among them.
    #[must_use]
    pub const fn contains(self, version: Version) -> bool {
        self.0 & 1 << version as u8 != 0
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::ALL
    }
}

/// A sentence for error texts: `MQTT 3.1.1 is served`.
impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut served = Version::ALL.into_iter().filter(|version| self.contains(*version)).peekable();
        let Some(first) = served.next() else { return f.write_str("no version is served") };
        let verb = if served.peek().is_some() { "are" } else { "is" };
        write!(f, "{first}")?;
        while let Some(version) = served.next() {
            let comma = if served.peek().is_some() { ", " } else { " and " };
            write!(f, "{comma}{}", version.number())?;
        }
        write!(f, " {verb} served")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_them_all() {
        let table: [(&[Version], &str); 4] = [
            (&[], "no version is served"),
            (&[Version::Mqtt311], "MQTT 3.1.1 is served"),
            (&[Version::Mqtt5, Version::Mqtt31], "MQTT 3.1 and 5 are served"),
            (&Version::ALL, "MQTT 3.1, 3.1.1 and 5 are served"),
        ];
        for (versions, sentence) in table {
            assert_eq!(Versions::of(versions).to_string(), sentence);
        }
    }
}
