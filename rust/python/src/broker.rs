//! `Broker`, the handle of the embedded broker.

#[cfg(feature = "cluster")]
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use broker::{Acl, Action, Actions, Forgotten, Options, Pattern, Rule, StartError};
use ipnet::IpNet;
use proxyproto_acceptor::{InheritedDescriptors, PrivatePort};
use proxyproto_broker as broker;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error;
use crate::gateway_channels::{optional, path};
use crate::gateway_options::{count, each, items, seconds, text, unknown, word};
use crate::listener_options::flag;

/// A broker for MQTT 3.1, 3.1.1 and 5 in this process, on threads of its own, which a `Gateway` reaches on a port of 127.0.0.1.
/// All methods are thread-safe.
///
/// Its threads do not exist in a forked child. There, all methods but `close` raise RuntimeError.
///
/// Args:
///     options: With the names of the broker's configuration, `backend.embedded`, and `max_packet_size`.
///     acl: The rules of `acl`, as mappings.
///
/// Raises:
///     ValueError: An option or a rule cannot be meant. The text begins with its name, as in `acl.0.topics.1: ...`.
///     TypeError: One is unknown, or of a wrong type.
///     OSError: There is no thread, port or memory, or the directory of `persistence` cannot be used.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Broker {
    inner: Mutex<Option<Arc<broker::Broker>>>,
    process: u32,
}

/// The brokers that were made here, and in which process. Only threads that are attached to the interpreter lock it, so no other
/// holds it when one forks.
static BROKERS: Mutex<Vec<(Weak<broker::Broker>, u32)>> = Mutex::new(Vec::new());

/// What the brokers of this process have open, for a forked child to close.
pub(crate) fn descriptors() -> Vec<InheritedDescriptors> {
    let brokers = BROKERS.lock().unwrap_or_else(PoisonError::into_inner);
    let own = brokers.iter().filter(|(_, process)| *process == std::process::id());
    own.filter_map(|(broker, _)| broker.upgrade()).map(|broker| broker.descriptors()).collect()
}

/// Of each denial the client id, the client's address and port, `publish` or `subscribe`, the topic, and how often.
type Denied = Vec<(String, Option<(String, u16)>, &'static str, String, u64)>;

#[pymethods]
impl Broker {
    #[new]
    #[pyo3(signature = (options, acl, /))]
    fn new(py: Python<'_>, options: &Bound<'_, PyDict>, acl: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (options, acl) = (read_options(options)?, read_acl(acl)?);
        let broker = py.detach(|| broker::Broker::start(options, acl));
        let broker = broker.map_err(|error: StartError| PyOSError::new_err(error.to_string()))?;
        let (broker, process) = (Arc::new(broker), std::process::id());
        let mut brokers = BROKERS.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.retain(|(broker, _)| broker.strong_count() > 0);
        brokers.push((Arc::downgrade(&broker), process));
        drop(brokers);
        Ok(Self { inner: Mutex::new(Some(broker)), process })
    }

    /// Check options and rules, and start nothing. Raises ValueError and TypeError as the constructor does.
    #[staticmethod]
    #[pyo3(signature = (options, acl, /))]
    fn check(options: &Bound<'_, PyDict>, acl: &Bound<'_, PyAny>) -> PyResult<()> {
        read_options(options)?;
        read_acl(acl)?;
        Ok(())
    }

    /// Where it listens, as `host:port`.
    #[getter]
    fn address(&self) -> PyResult<String> {
        Ok(self.get()?.address().to_string())
    }

    /// What makes it let a CONNECT in: the option `upstream.secret` of the Gateway.
    #[getter]
    fn secret<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, self.get()?.secret().as_bytes()))
    }

    /// Put other rules in force, for the sessions that are there too. Raises as the constructor does; then nothing has changed.
    #[pyo3(signature = (acl, /))]
    fn set_acl(&self, acl: &Bound<'_, PyAny>) -> PyResult<()> {
        self.get()?.set_acl(read_acl(acl)?);
        Ok(())
    }

    /// Return what was denied since the last call, and how many more publishes and subscribes were, of which no more is known.
    fn take_denials(&self) -> PyResult<(Denied, u64, u64)> {
        let taken = self.get()?.take_denials();
        let counted = taken.counted.into_iter().map(|(denial, count)| {
            let action = match denial.action {
                Action::Publish => "publish",
                Action::Subscribe => "subscribe",
            };
            let client = denial.client.map(|client| (client.ip().to_string(), client.port()));
            (denial.client_id, client, action, denial.topic, count)
        });
        Ok((counted.collect(), taken.more_publishes, taken.more_subscribes))
    }

    /// Return how often the disk has taken nothing since the last call, and what the last one met with; None if it takes all.
    fn take_unwritten(&self) -> PyResult<Option<(u64, String)>> {
        Ok(self.get()?.take_unwritten().map(|unwritten| (unwritten.times, unwritten.why)))
    }

    /// Return the filters that a session has subscribed to, with their QoS; None if there is no session.
    #[pyo3(signature = (client_id, /))]
    fn subscriptions<'py>(&self, py: Python<'py>, client_id: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
        let broker = self.get()?;
        let Some(found) = py.detach(|| broker.subscriptions(client_id)) else { return Ok(None) };
        let filters = PyDict::new(py);
        for subscription in found {
            filters.set_item(subscription.filter, subscription.qos)?;
        }
        Ok(Some(filters))
    }

    /// Return the sessions whose clients are away, as mappings; those from before a restart are there from the start.
    fn kept<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let broker = self.get()?;
        let kept = py.detach(|| broker.kept());
        let told = kept.into_iter().map(|session| {
            let told = PyDict::new(py);
            told.set_item("client_id", session.client_id)?;
            told.set_item("username", session.username)?;
            told.set_item("client", session.client.map(|client| (client.ip().to_string(), client.port())))?;
            told.set_item("version", session.version)?;
            told.set_item("clean_session", session.is_clean)?;
            told.set_item("keep_alive", session.keep_alive)?;
            told.set_item("session_expiry", session.session_expiry)?;
            told.set_item("connected_at", session.connected_at)?;
            told.set_item("disconnected_at", session.disconnected_at)?;
            Ok(told)
        });
        told.collect()
    }

    /// Whether the session of a client id is on another node of the cluster.
    #[pyo3(signature = (client_id, /))]
    fn is_elsewhere(&self, py: Python<'_>, client_id: &str) -> PyResult<bool> {
        let broker = self.get()?;
        Ok(py.detach(|| broker.is_elsewhere(client_id)))
    }

    /// End a session, whether its client is there or away: `gone`; `unknown` if there is none, `busy` if it may be tried again.
    /// It may take some seconds.
    #[pyo3(signature = (client_id, /))]
    fn forget(&self, py: Python<'_>, client_id: &str) -> PyResult<&'static str> {
        let broker = self.get()?;
        Ok(match py.detach(|| broker.forget(client_id)) {
            Forgotten::Gone => "gone",
            Forgotten::Unknown => "unknown",
            _ => "busy",
        })
    }

    /// Return the numbers of now.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let broker = self.get()?;
        let stats = py.detach(|| broker.stats());
        let numbers = PyDict::new(py);
        numbers.set_item("strangers", stats.strangers)?;
        numbers.set_item("not_retained", stats.not_retained)?;
        numbers.set_item("dropped", stats.dropped)?;
        numbers.set_item("sessions", stats.sessions)?;
        numbers.set_item("subscriptions", stats.subscriptions)?;
        numbers.set_item("retained", stats.retained)?;
        Ok(numbers)
    }

    /// End it, and every session. A second call does nothing.
    fn close(&self, py: Python<'_>) {
        let broker = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.process == std::process::id() {
            py.detach(|| drop(broker));
        } else {
            // Its threads are the parent's, and waiting for them would never end.
            std::mem::forget(broker);
        }
    }
}

impl Broker {
    fn get(&self) -> PyResult<Arc<broker::Broker>> {
        if self.process != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "this broker belongs to the parent process: make one after the fork",
            ));
        }
        let broker = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        broker.ok_or_else(|| PyRuntimeError::new_err("the broker is closed"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.inner.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// The way to a broker that is an option of a gateway.
pub(crate) fn port_of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Arc<PrivatePort>>> {
    let broker = value.cast::<Broker>().map_err(|_| error::wrong_type(name, "Broker or None", value))?;
    Ok(broker.get().get()?.port().cloned())
}

fn read_options(given: &Bound<'_, PyDict>) -> PyResult<Options> {
    let mut options = Options::default();
    each(given, "embedded.", |name, value| {
        match name.trim_start_matches("embedded.") {
            "threads" => options.threads = count(name, value)?,
            "max_packet_size" => {
                options.max_packet_size = error::int_argument(name, value, "from 0 to 4294967295")?;
            }
            "max_inflight" => {
                let most: u16 = error::int_argument(name, value, "from 1 to 65535")?;
                options.max_inflight = NonZeroU16::new(most)
                    .ok_or_else(|| PyValueError::new_err(format!("{name}: must be at least 1")))?;
            }
            "max_queued" => options.max_queued = count(name, value)?,
            "max_retained" => options.max_retained = Some(count(name, value)?).filter(|most| *most > 0),
            "session_expiry" => options.session_expiry = seconds(name, value)?,
            #[cfg(feature = "cluster")]
            "cluster" => {
                options.cluster = if value.is_none() { None } else { Some(read_cluster(name, value)?) }
            }
            #[cfg(not(feature = "cluster"))]
            "cluster" if value.is_none() => {}
            #[cfg(not(feature = "cluster"))]
            "cluster" => {
                return Err(PyValueError::new_err(format!(
                    "{name}: this build of proxyproto_rs knows no clusters; build it with protoc installed, as docs/embedded.md says"
                )));
            }
            "shared_subscriptions" => options.shared_subscriptions = flag(name, value)?,
            "sys_interval" => options.sys_interval = optional(value, |value| seconds(name, value))?,
            "persistence" => options.persistence = optional(value, |value| path(name, value))?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(options)
}

#[cfg(feature = "cluster")]
fn read_cluster(name: &str, given: &Bound<'_, PyAny>) -> PyResult<broker::Cluster> {
    let given = given.cast::<PyDict>().map_err(|_| error::wrong_type(name, "dict", given))?;
    let mut cluster = broker::Cluster { node: 0, peers: BTreeMap::new() };
    let prefix = format!("{name}.");
    each(given, &prefix, |name, value| {
        match name.strip_prefix(&prefix).unwrap_or_default() {
            "node" => cluster.node = error::int_argument(name, value, "from 1 to 65535")?,
            "peers" => {
                let peers = value.cast::<PyDict>().map_err(|_| error::wrong_type(name, "dict", value))?;
                for (node, address) in peers {
                    cluster.peers.insert(node.extract()?, text(name, &address)?);
                }
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(cluster)
}

fn read_acl(given: &Bound<'_, PyAny>) -> PyResult<Acl> {
    let mut at = 0_usize;
    let rules = items("acl", given, |_, rule| {
        let rule = read_rule(&format!("acl.{at}"), rule);
        at += 1;
        rule
    })?;
    Ok(Acl::new(rules))
}

fn read_rule(place: &str, given: &Bound<'_, PyAny>) -> PyResult<Rule> {
    let given = given.cast::<PyDict>().map_err(|_| error::wrong_type(place, "dict", given))?;
    let mut rule = Rule::new(false);
    let prefix = format!("{place}.");
    each(given, &prefix, |name, value| {
        match name.strip_prefix(&prefix).unwrap_or_default() {
            "users" => rule.users = names(name, value)?,
            "clients" => rule.clients = names(name, value)?,
            "networks" => {
                rule.networks = if value.is_none() { None } else { Some(items(name, value, network)?) };
            }
            "topics" => {
                let mut at = 0_usize;
                rule.topics = items(name, value, |name, topic| {
                    let topic = text(name, topic)?;
                    let pattern = topic.parse::<Pattern>();
                    let wrong = |error| PyValueError::new_err(format!("{name}.{at}: {error}, not {topic:?}"));
                    let pattern = pattern.map_err(wrong)?;
                    at += 1;
                    Ok(pattern)
                })?;
            }
            "actions" => {
                let words = [("publish", Action::Publish), ("subscribe", Action::Subscribe)];
                let actions = items(name, value, |name, action| word(name, action, &words))?;
                rule.actions = Actions {
                    publish: actions.contains(&Action::Publish),
                    subscribe: actions.contains(&Action::Subscribe),
                };
            }
            "allow" => rule.allow = flag(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(rule)
}

fn names(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<HashSet<String>>> {
    if value.is_none() { Ok(None) } else { Ok(Some(items(name, value, text)?.into_iter().collect())) }
}

fn network(name: &str, value: &Bound<'_, PyAny>) -> PyResult<IpNet> {
    let given = text(name, value)?;
    let network = given.parse::<IpNet>().or_else(|_| given.parse::<IpAddr>().map(IpNet::from));
    network
        .map_err(|_| PyValueError::new_err(format!("{name}: must be an address or a network, not {given:?}")))
}
