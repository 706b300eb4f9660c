//! Network interfaces: their names, as people write them, and their numbers, which the kernel gives with an address.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

/// A name that Linux allows for an interface. The interface need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InterfaceName {
    /// Padded with zeros: `IFNAMSIZ` without the last NUL.
    bytes: [u8; 15],
}

impl InterfaceName {
    /// The name that the interface with this number has now. `None` if there is no such interface.
    pub(crate) fn of(number: NonZeroU32) -> Option<Self> {
        netdevice::index_to_name_inlined(any_socket()?, number.get()).ok()?.as_str().parse().ok()
    }

    /// The number that the interface with this name has now. `None` if there is no such interface.
    pub(crate) fn number(self) -> Option<NonZeroU32> {
        NonZeroU32::new(netdevice::name_to_index(any_socket()?, self.as_str()).ok()?)
    }

    fn as_str(&self) -> &str {
        let length = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(self.bytes.len());
        // The bytes come from a `str`.
        self.bytes.get(..length).and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl FromStr for InterfaceName {
    type Err = ();

    /// Follows the kernel's rule (`dev_valid_name`). It also refuses characters that would be misread in an address or a log
    /// line.
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_wrong = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
        if text.is_empty() || matches!(text, "." | "..") || text.contains(is_wrong) {
            return Err(());
        }
        let mut bytes = [0; 15];
        bytes.get_mut(..text.len()).ok_or(())?.copy_from_slice(text.as_bytes());
        Ok(Self { bytes })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A socket to ask about interfaces; any kind will do. `None` if no descriptor is left.
fn any_socket() -> Option<std::os::fd::OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_kernel_allows_them() {
        for text in ["lo", "eth0", "wlp0s20f3", "br-0123456789ab", "en\u{e4}0"] {
            assert_eq!(text.parse::<InterfaceName>().unwrap().to_string(), text);
        }
        for text in ["", ".", "..", "a/b", "a:b", "a%b", "a b", "a\nb", "a\u{7f}", "a-name-of-16-bytes"] {
            assert_eq!(text.parse::<InterfaceName>(), Err(()), "{text}");
        }
    }

    #[test]
    fn every_machine_has_a_loopback() {
        let name: InterfaceName = "lo".parse().unwrap();
        let number = name.number().unwrap();
        assert_eq!(InterfaceName::of(number), Some(name));
        assert_eq!("no-such-0".parse::<InterfaceName>().unwrap().number(), None);
        assert_eq!(InterfaceName::of(NonZeroU32::MAX), None);
    }
}
