//! An address or a network, as a set holds it, and its text form.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addresses::Host;
use crate::interface::InterfaceName;

/// An address or a network without host bits. An IPv4-mapped one becomes IPv4.
///
/// A link-local one (within `fe80::/10`) has a meaning on one interface only. So it may have a scope, the name or the number of
/// the interface: `fe80::1%eth0` or `fe80::%3/64` (RFC 4007).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    pub(crate) range: IpNet,
    pub(crate) scope: Option<Scope>,
}

/// The interface that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    Number(NonZeroU32),
    Name(InterfaceName),
}

/// A text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkError {
    /// The beginning of the text.
    text: String,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NoNetwork,
    HostBits,
    NoInterface,
    NotLinkLocal,
}

impl Network {
    /// `range` without a scope. It must have no host bits and must not be IPv4-mapped.
    pub(crate) fn of(range: impl Into<IpNet>) -> Self {
        Self { range: range.into(), scope: None }
    }

    pub(crate) fn has_scope(&self) -> bool {
        self.scope.is_some()
    }

    /// The same addresses without a scope.
    pub(crate) fn without_scope(self) -> Self {
        Self { scope: None, ..self }
    }

    /// Whether it lies in `fe80::/10`, where the same address means another host on each interface.
    pub(crate) fn is_link_local(self) -> bool {
        matches!(self.range, IpNet::V6(range) if is_link_local(range))
    }
}

impl Scope {
    /// The same interface by its number instead of its name, or the reverse. `None` if there is no such interface now.
    pub(crate) fn other_form(self) -> Option<Self> {
        match self {
            Self::Number(number) => InterfaceName::of(number).map(Self::Name),
            Self::Name(name) => name.number().map(Self::Number),
        }
    }
}

impl From<IpAddr> for Network {
    /// The address, without a scope.
    fn from(ip: IpAddr) -> Self {
        Self::of(ip.to_canonical())
    }
}

impl From<SocketAddr> for Network {
    /// The address without its port. A link-local one has its interface as scope.
    fn from(address: SocketAddr) -> Self {
        Host::from(address).into()
    }
}

impl From<Host> for Network {
    /// The address. A link-local one has its interface as scope.
    fn from(host: Host) -> Self {
        let network = Self::from(host.ip);
        let number = NonZeroU32::new(host.scope_id).filter(|_| network.is_link_local());
        Self { scope: number.map(Scope::Number), ..network }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        parse(text).map_err(|fault| NetworkError { text: text.chars().take(64).collect(), fault })
    }
}

fn parse(text: &str) -> Result<Network, Fault> {
    let (scope, range) = match text.split_once('%') {
        Some((address, rest)) => {
            let (scope, prefix) = rest.split_once('/').map_or((rest, None), |(scope, p)| (scope, Some(p)));
            (Some(parse_scope(scope)?), parse_range(address, prefix)?)
        }
        None => match text.split_once('/') {
            Some((address, prefix)) => (None, parse_range(address, Some(prefix))?),
            None => (None, parse_range(text, None)?),
        },
    };
    if range.trunc() != range {
        return Err(Fault::HostBits);
    }
    let network = Network { range: unmapped(range), scope };
    if scope.is_some() && !network.is_link_local() {
        return Err(Fault::NotLinkLocal);
    }
    Ok(network)
}

fn parse_range(address: &str, prefix: Option<&str>) -> Result<IpNet, Fault> {
    let address: IpAddr = address.parse().map_err(|_| Fault::NoNetwork)?;
    let Some(prefix) = prefix else { return Ok(address.into()) };
    // A prefix has no sign, but parsing an `u8` would accept one.
    let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = prefix.parse().ok().filter(|_| is_number).ok_or(Fault::NoNetwork)?;
    IpNet::new(address, prefix).map_err(|_| Fault::NoNetwork)
}

fn parse_scope(text: &str) -> Result<Scope, Fault> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Scope::Number).map_err(|_| Fault::NoInterface);
    }
    text.parse().map(Scope::Name).map_err(|()| Fault::NoInterface)
}

fn unmapped(range: IpNet) -> IpNet {
    if let (IpAddr::V4(address), Some(prefix)) =
        (range.network().to_canonical(), range.prefix_len().checked_sub(96))
        && let IpNet::V6(_) = range
        && let Ok(range) = Ipv4Net::new(address, prefix)
    {
        return IpNet::V4(range);
    }
    range
}

fn is_link_local(range: Ipv6Net) -> bool {
    const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    LINK_LOCAL.contains(&range)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.range.addr().fmt(f)?;
        if let Some(scope) = self.scope {
            write!(f, "%{scope}")?;
        }
        if self.range.prefix_len() == self.range.max_prefix_len() {
            return Ok(());
        }
        write!(f, "/{}", self.range.prefix_len())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wrong = match self.fault {
            Fault::NoNetwork => "is not an IPv4 or IPv6 address or network",
            Fault::HostBits => "has host bits set",
            Fault::NoInterface => "names no interface behind its %",
            Fault::NotLinkLocal => "has a scope, which only link-local addresses (fe80::/10) have",
        };
        write!(f, "{:?} {wrong}", self.text)
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_as_it_is_read() {
        for text in [
            "192.0.2.1",
            "10.0.0.0/8",
            "::/0",
            "2001:db8::/32",
            "fe80::1",
            "fe80::1%eth0",
            "fe80::1%3",
            "fe80::%eth0/64",
            "fe80::%4294967295/10",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mapped_networks_are_ipv4_networks() {
        for (text, expected) in
            [("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:10.0.0.1", "10.0.0.1"), ("::/0", "::/0")]
        {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn texts_that_are_no_network() {
        let no_network = "is not an IPv4 or IPv6 address or network";
        let no_interface = "names no interface behind its %";
        let not_link_local = "has a scope, which only link-local addresses (fe80::/10) have";
        let cases = [
            ("", no_network),
            ("10.0.0", no_network),
            ("10.0.0.0/33", no_network),
            ("1.2.3.4/-1", no_network),
            ("1.2.3.4/+8", no_network),
            ("1.2.3.4/", no_network),
            ("host", no_network),
            ("%eth0", no_network),
            ("fe80::%eth0/129", no_network),
            ("fe80::%eth0/64/64", no_network),
            ("10.0.0.1/8", "has host bits set"),
            ("2001:db8::1/32", "has host bits set"),
            ("fe80::1%eth0/64", "has host bits set"),
            ("fe80::1%", no_interface),
            ("fe80::1%0", no_interface),
            ("fe80::1%4294967296", no_interface),
            ("fe80::1%eth0%eth1", no_interface),
            ("fe80::/64%eth0", no_network),
            ("fe80::1%eth\n", no_interface),
            ("2001:db8::1%eth0", not_link_local),
            ("::1%lo", not_link_local),
            ("192.0.2.1%eth0", not_link_local),
            ("::ffff:192.0.2.1%eth0", not_link_local),
            ("fe00::%eth0/9", not_link_local),
        ];
        for (text, wrong) in cases {
            assert_eq!(text.parse::<Network>().unwrap_err().to_string(), format!("{text:?} {wrong}"));
        }
    }

    #[test]
    fn only_a_link_local_peer_has_a_scope() {
        for (address, expected) in [
            ("[fe80::1%3]:80", "fe80::1%3"),
            ("[fe80::1]:80", "fe80::1"),
            ("[2001:db8::1%3]:80", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(Network::from(address).to_string(), expected);
        }
    }
}
