//! `AddressSet` and `ClientLimits`, which several listeners can share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proxyproto_acceptor as acceptor;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};

use crate::error;

/// A thread-safe set of IP addresses and networks, for the options `trusted`, `allow` and `deny` of any number of
/// listeners.
///
/// A change takes effect at once in every listener that holds the set, for connections that arrive afterwards. Adding
/// and removing an entry take the same time whatever the size of the set. IPv4-mapped IPv6 addresses count as IPv4.
///
/// A link-local address (fe80::/10) means another host on each interface. "fe80::1%eth0" and "fe80::%eth0/64" match peers on
/// that interface. Without a scope, "fe80::1" and "fe80::/10" match addresses without an interface, such as those in
/// headers, but no peer: a trusted proxy must not be another host on another interface. In `deny` they match on every
/// interface.
///
/// Args:
///     networks: Addresses and networks in CIDR notation, as text or from `ipaddress`.
///
/// Raises:
///     ValueError: A text is not an address or network, has host bits set, or has a scope though it is not link-local.
///     TypeError: An item is neither text nor from `ipaddress`.
///
/// Typical use::
///
///     blocked = AddressSet()
///     listener = Listener("0.0.0.0", 1883, trusted=["10.0.0.0/8"], deny=blocked)
///     blocked.add("192.0.2.7", expires=600)
#[pyclass(frozen, module = "proxyproto_rs")]
pub(crate) struct AddressSet(acceptor::AddressSet);

#[pymethods]
impl AddressSet {
    #[new]
    #[pyo3(signature = (networks=None, /), text_signature = "(networks=(), /)")]
    fn new(networks: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        networks.map_or_else(
            || Ok(Self(acceptor::AddressSet::new())),
            |networks| Ok(Self(address_set("networks", networks)?)),
        )
    }

    /// Add an address or a network, for ever or for `expires` seconds. It replaces an entry that is there already.
    ///
    /// Raises:
    ///     ValueError: As for the constructor; or `expires` is not greater than 0.
    #[pyo3(signature = (network, /, *, expires=None))]
    fn add(&self, network: &Bound<'_, PyAny>, expires: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let network = parse("network", &text("network", network)?)?;
        self.0.add(network, expires.map(expiry).transpose()?);
        Ok(())
    }

    /// Remove exactly this entry, if it is there.
    ///
    /// Raises:
    ///     ValueError: As for the constructor.
    #[pyo3(signature = (network, /))]
    fn discard(&self, network: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.discard(parse("network", &text("network", network)?)?);
        Ok(())
    }

    /// Look into these sets too from now on, and no longer into those that were included before.
    ///
    /// `in` and the listeners that hold the set find the networks of included sets too; `len` and iterating leave them out.
    /// The sets that an included set includes are not looked into. A refusal names the included set.
    ///
    /// Args:
    ///     sets: The sets by their names, in the order in which they are looked into.
    ///
    /// Raises:
    ///     TypeError: It is no mapping of texts to AddressSets.
    #[pyo3(signature = (sets, /))]
    fn include(&self, sets: &Bound<'_, PyAny>) -> PyResult<()> {
        let wrong = || error::wrong_type("sets", "a mapping of names to AddressSets", sets);
        let items = sets.cast::<PyMapping>().map_err(|_| wrong())?.items()?;
        let mut included: Vec<(Arc<str>, acceptor::AddressSet)> = Vec::with_capacity(items.len());
        for item in items.iter() {
            let (name, set): (String, Py<Self>) = item.extract().map_err(|_| wrong())?;
            included.push((name.into(), set.get().0.clone()));
        }
        self.0.include(included);
        Ok(())
    }

    /// Whether one entry covers the whole address or network.
    fn __contains__(&self, network: &Bound<'_, PyAny>) -> PyResult<bool> {
        let network = parse("network", &text("network", network)?)?;
        Ok(self.0.contains(network, Instant::now()))
    }

    /// How many entries have not expired.
    fn __len__(&self, py: Python<'_>) -> usize {
        // It counts the expired entries, up to 0.1 us each. Other threads may run meanwhile.
        py.detach(|| self.0.len(Instant::now()))
    }

    /// Iterate over the entries as text: IPv4, then IPv6, then those with a scope, by interface; each in the order of their
    /// addresses. It is a copy, so the set may change meanwhile.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let entries = || self.0.entries(Instant::now()).iter().map(ToString::to_string).collect::<Vec<_>>();
        let entries = py.detach(entries);
        Ok(entries.into_pyobject(py)?.try_iter()?.into_any())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<AddressSet of {} networks>", self.__len__(py))
    }
}

impl AddressSet {
    pub(crate) fn wrap(set: acceptor::AddressSet) -> Self {
        Self(set)
    }
}

/// Takes an `AddressSet` as it is, or makes one from an iterable.
pub(crate) fn address_set(option: &str, given: &Bound<'_, PyAny>) -> PyResult<acceptor::AddressSet> {
    if let Ok(set) = given.cast::<AddressSet>() {
        return Ok(set.get().0.clone());
    }
    // A str is an iterable of characters too.
    if given.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(format!(
            "{option} must be an iterable of addresses and networks, not one str: did you mean [{}]?",
            given.repr()?
        )));
    }
    let Ok(items) = given.try_iter() else {
        return Err(error::wrong_type(
            option,
            "an AddressSet or an iterable of addresses and networks",
            given,
        ));
    };
    let texts = items.map(|item| text(option, &item?)).collect::<PyResult<Vec<String>>>()?;
    // Parsing a hundred thousand takes tens of milliseconds, so other threads may run.
    given.py().detach(|| texts.iter().map(|text| parse(option, text)).collect())
}

fn expiry(given: &Bound<'_, PyAny>) -> PyResult<Instant> {
    let seconds: f64 =
        given.extract().map_err(|_| error::wrong_type("expires", "a number of seconds or None", given))?;
    // NaN is not greater than 0 either.
    if seconds > 0.0 {
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        return Ok(Instant::now() + time.min(acceptor::LONGEST_EXPIRY));
    }
    Err(error::out_of_range("expires", "greater than 0 seconds", given))
}

fn text(option: &str, network: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = network.cast::<PyString>() {
        return Ok(text.to_cow()?.into_owned());
    }
    // Only `ipaddress` objects have both attributes.
    if network.hasattr("max_prefixlen")? && network.hasattr("version")? {
        return Ok(network.str()?.to_cow()?.into_owned());
    }
    Err(error::wrong_type(&format!("an entry of {option}"), "str or an object of ipaddress", network))
}

fn parse(option: &str, text: &str) -> PyResult<acceptor::Network> {
    text.parse().map_err(|error: acceptor::NetworkError| PyValueError::new_err(format!("{option}: {error}")))
}

/// Limits for each client, counted over all listeners that hold this object.
///
/// Args:
///     max_connections: How many connections a client may have open at once; None means no limit.
///     max_rate: How many connections per second a client may open in the long run; None means no limit.
///     burst: How many connections a client may open in one burst; by default `max_rate`, rounded up.
///     ipv6_prefix: How many leading bits of an IPv6 address make up one client.
///
/// Raises:
///     ValueError: A number is out of its range, or `burst` is given without `max_rate`.
///
/// Typical use::
///
///     limits = ClientLimits(max_connections=10, max_rate=5)
///     plain = Listener("0.0.0.0", 1883, trusted=["10.0.0.0/8"], client_limits=limits)
///     websocket = Listener("0.0.0.0", 8083, trusted=["10.0.0.0/8"], client_limits=limits)
#[pyclass(frozen, module = "proxyproto_rs")]
pub(crate) struct ClientLimits(pub(crate) acceptor::ClientLimits);

#[pymethods]
impl ClientLimits {
    #[new]
    #[pyo3(
        signature = (max_connections=None, max_rate=None, burst=None, ipv6_prefix=None),
        text_signature = "(max_connections=None, max_rate=None, burst=None, ipv6_prefix=64)"
    )]
    fn new(
        max_connections: Option<&Bound<'_, PyAny>>,
        max_rate: Option<&Bound<'_, PyAny>>,
        burst: Option<&Bound<'_, PyAny>>,
        ipv6_prefix: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut limits = acceptor::PerClient::default();
        limits.max_connections = max_connections.map(|value| count("max_connections", value)).transpose()?;
        limits.ipv6_prefix = ipv6_prefix.map_or(Ok(limits.ipv6_prefix), prefix)?;
        let max_rate = max_rate.map(|value| per_second("max_rate", value)).transpose()?;
        let burst = burst.map(|value| count("burst", value)).transpose()?;
        limits.rate = rate(("max_rate", max_rate), ("burst", burst))?;
        Ok(Self(acceptor::ClientLimits::new(limits)))
    }

    #[getter]
    fn max_connections(&self) -> Option<usize> {
        self.0.limits().max_connections
    }

    #[getter]
    fn max_rate(&self) -> Option<f64> {
        self.0.limits().rate.map(acceptor::Rate::per_second)
    }

    #[getter]
    fn burst(&self) -> Option<u32> {
        self.0.limits().rate.map(acceptor::Rate::burst)
    }

    #[getter]
    fn ipv6_prefix(&self) -> u8 {
        self.0.limits().ipv6_prefix
    }

    fn __repr__(&self) -> String {
        let number = |number: Option<String>| number.unwrap_or_else(|| "None".into());
        format!(
            "ClientLimits(max_connections={}, max_rate={}, burst={}, ipv6_prefix={})",
            number(self.max_connections().map(|number| number.to_string())),
            number(self.max_rate().map(|number| number.to_string())),
            number(self.burst().map(|number| number.to_string())),
            self.ipv6_prefix()
        )
    }
}

/// Takes a limit on a number of things. 0 is an error: None stands for no limit.
pub(crate) fn count(option: &str, given: &Bound<'_, PyAny>) -> PyResult<usize> {
    at_least_one(option, given, "at least 1 (None means no limit)")
}

/// Takes an integer above 0.
pub(crate) fn at_least_one(option: &str, given: &Bound<'_, PyAny>, range: &str) -> PyResult<usize> {
    let count: usize = error::int_argument(option, given, range)?;
    if count == 0 { Err(error::out_of_range(option, range, given)) } else { Ok(count) }
}

fn prefix(given: &Bound<'_, PyAny>) -> PyResult<u8> {
    let (option, range) = ("ipv6_prefix", "from 1 to 128");
    let prefix: u8 = error::int_argument(option, given, range)?;
    if (1..=128).contains(&prefix) { Ok(prefix) } else { Err(error::out_of_range(option, range, given)) }
}

/// Takes a rate, in connections per second.
pub(crate) fn per_second(option: &str, given: &Bound<'_, PyAny>) -> PyResult<f64> {
    let rate: f64 = given.extract().map_err(|_| error::wrong_type(option, "a number", given))?;
    if acceptor::Rate::RANGE.contains(&rate) {
        return Ok(rate);
    }
    Err(error::out_of_range(option, "greater than 0, from 1e-9 to 1e9 (None means no limit)", given))
}

/// The rate that these two options give. Errors call the options by the names given here.
pub(crate) fn rate(
    max_rate: (&str, Option<f64>),
    burst: (&str, Option<usize>),
) -> PyResult<Option<acceptor::Rate>> {
    match (max_rate.1, burst.1) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            Err(PyValueError::new_err(format!("{} means nothing without {}", burst.0, max_rate.0)))
        }
        (Some(per_second), burst) => {
            let burst = burst.map(|burst| u32::try_from(burst).unwrap_or(u32::MAX));
            Ok(acceptor::Rate::new(per_second, burst))
        }
    }
}
