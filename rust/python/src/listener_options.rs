//! Converts the keywords of `Listener` to the acceptor's options and back.

use proxyproto_acceptor as acceptor;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

use acceptor::{HeaderTimeout, OptionError, Options};

use crate::error;
use crate::limits::{self, AddressSet, ClientLimits};
use crate::options::{MaxHeaderSize, Versions};
use crate::wording::argument;

/// What an update must keep although the acceptor's options do not hold it: how the limits per client were given.
pub(crate) struct Given {
    /// Counts for the `..._per_client` keywords. Updates keep it, so that connected clients stay counted.
    own_limits: acceptor::ClientLimits,
    /// `burst_per_client`, if it was given. Otherwise it follows the rate.
    burst: Option<usize>,
    /// The object given as `client_limits`.
    shared_limits: Option<Py<ClientLimits>>,
}

impl Given {
    pub(crate) fn new() -> Self {
        let own_limits = acceptor::ClientLimits::new(acceptor::PerClient::default());
        Self { own_limits, burst: None, shared_limits: None }
    }

    pub(crate) fn has_client_limits(&self) -> bool {
        self.shared_limits.is_some()
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        let shared_limits = self.shared_limits.as_ref().map(|limits| limits.clone_ref(py));
        Self { own_limits: self.own_limits.clone(), burst: self.burst, shared_limits }
    }
}

/// The given keywords, read once. Reading may run any Python code. Applying runs none, so it can be done under a lock.
pub(crate) struct Changes(Vec<Change>);

type Change = Box<dyn FnOnce(&mut Draft)>;

/// The state that the changes are applied to.
struct Draft {
    options: Options,
    per_client: PerClient,
    shared_limits: Option<Py<ClientLimits>>,
}

/// Reads the value now, and sets the field when the change is applied.
macro_rules! set {
    ($($field:ident).+ = $value:expr) => {{
        let value = $value;
        Box::new(move |draft: &mut Draft| draft.$($field).+ = value)
    }};
}

impl Changes {
    pub(crate) fn read(keywords: &Bound<'_, PyDict>) -> PyResult<Self> {
        let read = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            let name = name.cast::<PyString>().map_err(|_| error::wrong_type("a keyword", "str", &name))?;
            read_one(&name.to_cow()?, &value)
        };
        keywords.iter().map(read).collect::<PyResult<_>>().map(Self)
    }

    /// Applies the changes to a copy of `options`. If the result is not valid, nothing has changed.
    pub(crate) fn apply(
        self,
        py: Python<'_>,
        options: &Options,
        given: &Given,
    ) -> PyResult<(Options, Given)> {
        let Given { own_limits, burst, shared_limits } = given.clone_ref(py);
        let per_client = PerClient::of(own_limits.limits(), burst);
        let mut draft = Draft { options: options.clone(), per_client, shared_limits };
        for change in self.0 {
            change(&mut draft);
        }
        let Draft { mut options, per_client, shared_limits } = draft;
        let own = per_client.limits()?;
        if shared_limits.is_some() && own != acceptor::PerClient::default() {
            return Err(PyValueError::new_err(
                "client_limits stands in place of max_connections_per_client, max_rate_per_client and \
                 burst_per_client: give one or the other",
            ));
        }
        let own_limits = own_limits.with_limits(own);
        options.client_limits = match &shared_limits {
            Some(limits) => limits.get().0.clone(),
            None => own_limits.clone(),
        };
        options.check().map_err(cannot_be_meant)?;
        Ok((options, Given { own_limits, burst: per_client.burst, shared_limits }))
    }
}

fn read_one(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Change> {
    Ok(match name {
        "proxy_protocol" => set!(options.proxy_protocol = word(name, value)?),
        "trusted" => set!(options.trusted = optional(name, value, limits::address_set)?),
        "untrusted" => set!(options.untrusted = word(name, value)?),
        "versions" => set!(options.codec.versions = value.extract::<Versions>()?.0),
        "max_header_size" => set!(options.codec.max_header_size = value.extract::<MaxHeaderSize>()?.0),
        "allow_mixed_families" => set!(options.codec.allow_mixed_families = flag(name, value)?),
        "reject_unspec" => set!(options.codec.reject_unspec = flag(name, value)?),
        "ignore_malformed_tlvs" => set!(options.codec.ignore_malformed_tlvs = flag(name, value)?),
        "header_timeout" => set!(options.header_timeout = header_timeout(name, value)?),
        "max_pending" => set!(options.max_pending = limits::at_least_one(name, value, "at least 1")?),
        "defer_accept" => set!(options.defer_accept = optional(name, value, flag)?),
        "health_checks" => set!(options.health_checks = word(name, value)?),
        "allow" => set!(options.allow = optional(name, value, limits::address_set)?),
        "deny" => set!(options.deny = optional(name, value, limits::address_set)?),
        "max_connections" => set!(options.max_connections = optional(name, value, limits::count)?),
        "max_connections_per_client" => {
            set!(per_client.max_connections = optional(name, value, limits::count)?)
        }
        "max_rate_per_client" => set!(per_client.max_rate = optional(name, value, limits::per_second)?),
        "burst_per_client" => set!(per_client.burst = optional(name, value, limits::count)?),
        "client_limits" => set!(shared_limits = optional(name, value, shared_limits)?),
        "require_tls" => set!(options.require_tls = flag(name, value)?),
        "require_client_cert" => set!(options.require_client_cert = flag(name, value)?),
        _ => return Err(PyTypeError::new_err(format!("unexpected keyword argument '{name}'"))),
    })
}

/// The options in force, named by their keywords. `trusted`, `allow` and `deny` are the live sets.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    options: &Options,
    given: &Given,
) -> PyResult<Bound<'py, PyDict>> {
    let set = |set: &Option<acceptor::AddressSet>| {
        set.as_ref().map(|set| Py::new(py, AddressSet::wrap(set.clone()))).transpose()
    };
    let codec = &options.codec;
    let own = given.own_limits.limits();
    let versions: Vec<u8> = [(1, proxyproto_codec::Version::V1), (2, proxyproto_codec::Version::V2)]
        .into_iter()
        .filter(|(_, version)| codec.versions.allow(*version))
        .map(|(number, _)| number)
        .collect();
    let dict = PyDict::new(py);
    dict.set_item("proxy_protocol", options.proxy_protocol.word())?;
    dict.set_item("trusted", set(&options.trusted)?)?;
    dict.set_item("untrusted", options.untrusted.word())?;
    dict.set_item("versions", PyTuple::new(py, versions)?)?;
    dict.set_item("max_header_size", codec.max_header_size.get())?;
    dict.set_item("allow_mixed_families", codec.allow_mixed_families)?;
    dict.set_item("reject_unspec", codec.reject_unspec)?;
    dict.set_item("ignore_malformed_tlvs", codec.ignore_malformed_tlvs)?;
    dict.set_item("header_timeout", options.header_timeout.get().as_secs_f64())?;
    dict.set_item("max_pending", options.max_pending)?;
    dict.set_item("defer_accept", options.defer_accept)?;
    dict.set_item("health_checks", options.health_checks.word())?;
    dict.set_item("allow", set(&options.allow)?)?;
    dict.set_item("deny", set(&options.deny)?)?;
    dict.set_item("max_connections", options.max_connections)?;
    dict.set_item("max_connections_per_client", own.max_connections)?;
    dict.set_item("max_rate_per_client", own.rate.map(acceptor::Rate::per_second))?;
    dict.set_item("burst_per_client", own.rate.map(acceptor::Rate::burst))?;
    dict.set_item("client_limits", given.shared_limits.as_ref())?;
    dict.set_item("require_tls", options.require_tls)?;
    dict.set_item("require_client_cert", options.require_client_cert)?;
    Ok(dict)
}

/// The three `..._per_client` keywords.
struct PerClient {
    max_connections: Option<usize>,
    max_rate: Option<f64>,
    burst: Option<usize>,
}

impl PerClient {
    fn of(limits: acceptor::PerClient, burst: Option<usize>) -> Self {
        let max_rate = limits.rate.map(acceptor::Rate::per_second);
        Self { max_connections: limits.max_connections, max_rate, burst }
    }

    fn limits(&self) -> PyResult<acceptor::PerClient> {
        let mut limits = acceptor::PerClient::default();
        limits.max_connections = self.max_connections;
        limits.rate = limits::rate(("max_rate_per_client", self.max_rate), ("burst_per_client", self.burst))?;
        Ok(limits)
    }
}

/// A ValueError that names the options by their keywords.
pub(crate) fn cannot_be_meant(error: OptionError) -> PyErr {
    PyValueError::new_err(error.text_in(argument))
}

fn optional<'py, T>(
    name: &str,
    value: &Bound<'py, PyAny>,
    convert: impl Fn(&str, &Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<Option<T>> {
    if value.is_none() { Ok(None) } else { convert(name, value).map(Some) }
}

fn shared_limits(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Py<ClientLimits>> {
    match value.cast::<ClientLimits>() {
        Ok(limits) => Ok(limits.clone().unbind()),
        Err(_) => Err(error::wrong_type(name, "a ClientLimits or None", value)),
    }
}

fn word<T: std::str::FromStr<Err = acceptor::UnknownWord>>(
    name: &str,
    value: &Bound<'_, PyAny>,
) -> PyResult<T> {
    let text = value.cast::<PyString>().map_err(|_| error::wrong_type(name, "str", value))?;
    text.to_cow()?.parse().map_err(|error| match value.repr() {
        Ok(given) => PyValueError::new_err(format!("{name} {error}, not {given}")),
        Err(error) => error,
    })
}

pub(crate) fn flag(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match value.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true()),
        Err(_) => Err(error::wrong_type(name, "bool", value)),
    }
}

fn header_timeout(name: &str, value: &Bound<'_, PyAny>) -> PyResult<HeaderTimeout> {
    let seconds = value.extract().map_err(|_| error::wrong_type(name, "a number of seconds", value))?;
    HeaderTimeout::from_secs(seconds)
        .ok_or_else(|| error::out_of_range(name, "greater than 0 and at most 3600 seconds", value))
}
