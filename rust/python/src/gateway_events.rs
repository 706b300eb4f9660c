//! What a gateway tells, as frozen Python objects. They hold the gateway's own data; most attributes are made when they are
//! asked for.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use proxyproto_gateway as gateway;
use proxyproto_mqtt::Version;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::endpoint;
use crate::header::Header;

/// What is known of a connection before its first byte of MQTT.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Arrival {
    arrival: Arc<gateway::Arrival>,
}

#[pymethods]
impl Arrival {
    /// The id of the connection and of its session.
    #[getter]
    fn session_id(&self) -> String {
        self.arrival.session_id.to_string()
    }

    /// The listener's name.
    #[getter]
    fn listener(&self) -> &str {
        &self.arrival.listener
    }

    /// The header; None for a connection that is served without one.
    #[getter]
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, Header>>> {
        self.arrival.header.clone().map(|header| Header::new(py, header)).transpose()
    }

    /// The other end of the connection itself, in the form of `getpeername()`.
    #[getter]
    fn peername<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        endpoint::peer_to_python(py, &self.arrival.peer)
    }

    /// Our end of the connection itself, in the form of `getsockname()`.
    #[getter]
    fn sockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        endpoint::local_to_python(py, &self.arrival.local)
    }

    /// The client that a trusted proxy has named in a header of HTTP.
    #[getter]
    fn forwarded<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.arrival.facts.forwarded.map(|address| endpoint::endpoint_to_python(py, address)).transpose()
    }

    /// What our own TLS handshake has shown: version, cipher, SNI, and the common name of a certificate that was verified.
    #[getter]
    fn tls(&self) -> Option<(&str, &str, Option<&str>, Option<&str>)> {
        let tls = self.arrival.facts.tls.as_ref()?;
        Some((&tls.version, &tls.cipher, tls.sni.as_deref(), tls.common_name.as_deref()))
    }

    /// The client's certificate in DER, which our own TLS has verified.
    #[getter]
    fn tls_certificate<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let tls = self.arrival.facts.tls.as_ref()?;
        tls.certificate.as_deref().map(|certificate| PyBytes::new(py, certificate))
    }

    /// Whether that certificate has more than one common name.
    #[getter]
    fn tls_has_more_names(&self) -> bool {
        self.arrival.facts.tls.as_ref().is_some_and(|tls| tls.has_more_names)
    }

    /// When it was accepted, in seconds since the epoch.
    #[getter]
    fn at(&self) -> f64 {
        since_epoch(self.arrival.at)
    }
}

/// A valid CONNECT.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Connect {
    connect: Arc<proxyproto_mqtt::Connect>,
}

#[pymethods]
impl Connect {
    /// As TBMQ writes it: `MQTT_3_1`, `MQTT_3_1_1` or `MQTT_5`.
    #[getter]
    fn mqtt_version<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        // One text for all: each session's record keeps it.
        match self.connect.version() {
            Version::Mqtt31 => intern!(py, "MQTT_3_1"),
            Version::Mqtt311 => intern!(py, "MQTT_3_1_1"),
            Version::Mqtt5 => intern!(py, "MQTT_5"),
        }
    }

    /// The client id. It is empty where the server is to choose one.
    #[getter]
    fn client_id(&self) -> &str {
        self.connect.client_id()
    }

    /// Whether an earlier session of this client id ends. MQTT 5 calls it a clean start.
    #[getter]
    fn clean_session(&self) -> bool {
        self.connect.clean_start()
    }

    /// The keep-alive in seconds; 0 means off.
    #[getter]
    fn keep_alive(&self) -> u16 {
        self.connect.keep_alive()
    }

    /// How long the session is kept after its connection, in seconds. None leaves it to the server, as MQTT 3 does.
    #[getter]
    fn session_expiry(&self) -> Option<u32> {
        match self.connect.version() {
            Version::Mqtt31 | Version::Mqtt311 if !self.connect.clean_start() => None,
            _ => Some(self.connect.session_expiry_interval()),
        }
    }

    /// The topic of the will, if there is one.
    #[getter]
    fn will_topic(&self) -> Option<&str> {
        self.connect.will().map(|will| will.topic)
    }

    /// The will, if there is one: topic, message, QoS, and whether it is retained.
    #[getter]
    fn will<'py>(&self, py: Python<'py>) -> Option<(&str, Bound<'py, PyBytes>, u8, bool)> {
        let will = self.connect.will()?;
        Some((will.topic, PyBytes::new(py, will.message), will.qos, will.retain))
    }

    /// The user name.
    #[getter]
    fn username(&self) -> Option<&str> {
        self.connect.username()
    }

    /// The password.
    #[getter]
    fn password<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.connect.password().map(|password| PyBytes::new(py, password))
    }

    /// The bytes of the packet, exactly as received.
    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.connect.raw())
    }
}

/// A client has sent its CONNECT and waits for `admit` or `refuse`.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Login {
    /// What the decision is about.
    #[pyo3(get)]
    token: u64,
    /// Whose connection it is.
    #[pyo3(get)]
    arrival: Py<Arrival>,
    /// The CONNECT.
    #[pyo3(get)]
    connect: Py<Connect>,
}

impl Login {
    pub(crate) fn new(py: Python<'_>, login: gateway::Login) -> PyResult<Self> {
        Ok(Self {
            token: login.token.number(),
            arrival: Py::new(py, Arrival { arrival: login.arrival })?,
            connect: Py::new(py, Connect { connect: login.connect })?,
        })
    }
}

/// A server has let the client in. Its CONNACK follows.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Welcomed {
    welcomed: gateway::Welcomed,
}

impl From<gateway::Welcomed> for Welcomed {
    fn from(welcomed: gateway::Welcomed) -> Self {
        Self { welcomed }
    }
}

#[pymethods]
impl Welcomed {
    /// Whose session begins.
    #[getter]
    fn token(&self) -> u64 {
        self.welcomed.token.number()
    }

    /// The server as the options name it; None for a broker in this process.
    #[getter]
    fn server(&self) -> Option<&str> {
        self.welcomed.server.as_ref().map(|server| &*server.configured)
    }

    /// The server's address.
    #[getter]
    fn server_address(&self) -> Option<&str> {
        self.welcomed.server.as_ref().map(|server| &*server.address)
    }

    /// The seconds from the first attempt to connect until the server's answer.
    #[getter]
    fn connect_time(&self) -> f64 {
        self.welcomed.connect_time.as_secs_f64()
    }

    /// The client id that the session has.
    #[getter]
    fn client_id(&self) -> &str {
        &self.welcomed.client_id
    }

    /// After how many seconds the client must have sent something; 0 means never.
    #[getter]
    fn keep_alive(&self) -> u16 {
        self.welcomed.keep_alive
    }

    /// Whether the server has kept a session of this client id.
    #[getter]
    fn session_present(&self) -> bool {
        self.welcomed.session_present
    }

    /// The words of the server (MQTT 5).
    #[getter]
    fn reason_string(&self) -> Option<&str> {
        self.welcomed.reason_string.as_deref()
    }
}

/// A connection has come to its end without a session.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Refused {
    /// Whose connection it was.
    #[pyo3(get)]
    arrival: Py<Arrival>,
    /// The CONNECT, if it was whole and valid.
    #[pyo3(get)]
    connect: Option<Py<Connect>>,
    told: gateway::Refused,
}

impl Refused {
    pub(crate) fn new(py: Python<'_>, refused: gateway::Refused) -> PyResult<Self> {
        let arrival = Py::new(py, Arrival { arrival: Arc::clone(&refused.arrival) })?;
        let connect = refused.connect.clone().map(|connect| Py::new(py, Connect { connect })).transpose()?;
        Ok(Self { arrival, connect, told: refused })
    }
}

#[pymethods]
impl Refused {
    /// The token of its login, if one was told.
    #[getter]
    fn token(&self) -> Option<u64> {
        self.told.token.map(gateway::Token::number)
    }

    /// The client id of a CONNECT that was not valid, if it could be read.
    #[getter]
    fn client_id(&self) -> &str {
        &self.told.client_id
    }

    /// The code of the reason.
    #[getter]
    fn reason(&self) -> &'static str {
        self.told.cause.code()
    }

    /// What exactly, for people.
    #[getter]
    fn detail(&self) -> &str {
        &self.told.detail
    }

    /// The address of the server that has refused it or failed; the last that was asked.
    #[getter]
    fn server_address(&self) -> Option<&str> {
        self.told.server.as_ref().map(|server| &*server.address)
    }

    /// The code of that server's CONNACK.
    #[getter]
    fn server_code(&self) -> Option<u8> {
        self.told.server_code
    }

    /// The words of that server (MQTT 5).
    #[getter]
    fn reason_string(&self) -> Option<&str> {
        self.told.reason_string.as_deref()
    }

    /// Whether it was a bridge of Mosquitto that asks for its private protocol, and comes again with the standard one.
    #[getter]
    fn is_bridge_probe(&self) -> bool {
        self.told.is_bridge_probe
    }
}

/// A session has come to its end.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Ended {
    ended: gateway::Ended,
}

impl From<gateway::Ended> for Ended {
    fn from(ended: gateway::Ended) -> Self {
        Self { ended }
    }
}

#[pymethods]
impl Ended {
    /// Whose session it was.
    #[getter]
    fn token(&self) -> u64 {
        self.ended.token.number()
    }

    /// The code of the reason.
    #[getter]
    fn reason(&self) -> &'static str {
        self.ended.cause.code()
    }

    /// What exactly, for people.
    #[getter]
    fn detail(&self) -> &str {
        &self.ended.detail
    }

    /// The code of the server's DISCONNECT (MQTT 5).
    #[getter]
    fn server_code(&self) -> Option<u8> {
        self.ended.server_code
    }

    /// The words of the server (MQTT 5).
    #[getter]
    fn reason_string(&self) -> Option<&str> {
        self.ended.reason_string.as_deref()
    }

    /// How long the client wants its session kept from now on, in seconds, if its DISCONNECT says so (MQTT 5).
    #[getter]
    fn session_expiry(&self) -> Option<u32> {
        self.ended.session_expiry
    }

    /// What went over it.
    #[getter]
    fn traffic(&self) -> Traffic {
        self.ended.traffic.into()
    }
}

/// What has gone over a session, in bytes and packets of MQTT, CONNECT and CONNACK among them.
#[pyclass(frozen, get_all, module = "proxyproto_rs._core")]
pub(crate) struct Traffic {
    /// Bytes of the client.
    bytes_in: u64,
    /// Bytes for the client.
    bytes_out: u64,
    /// Packets of the client.
    packets_in: u64,
    /// Packets for the client.
    packets_out: u64,
    /// When the client's last byte came, in seconds since the epoch.
    last_seen: f64,
}

impl From<gateway::Traffic> for Traffic {
    fn from(traffic: gateway::Traffic) -> Self {
        Self {
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
            packets_in: traffic.packets_in,
            packets_out: traffic.packets_out,
            last_seen: since_epoch(traffic.last_seen),
        }
    }
}

/// What a listener has refused before its first byte of MQTT.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct ListenerReport {
    listener: Arc<str>,
    /// As `Acceptor.take_refusals` gives them.
    #[pyo3(get)]
    refusals: Py<PyAny>,
}

impl ListenerReport {
    pub(crate) fn new(listener: Arc<str>, refusals: Py<PyAny>) -> Self {
        Self { listener, refusals }
    }
}

#[pymethods]
impl ListenerReport {
    /// The listener's name.
    #[getter]
    fn listener(&self) -> &str {
        &self.listener
    }
}

/// A server has gone down, or up again.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct ServerChange {
    change: gateway::ServerChange,
}

impl From<gateway::ServerChange> for ServerChange {
    fn from(change: gateway::ServerChange) -> Self {
        Self { change }
    }
}

#[pymethods]
impl ServerChange {
    /// The server as the options name it.
    #[getter]
    fn server(&self) -> &str {
        &self.change.server.configured
    }

    /// The server's address.
    #[getter]
    fn server_address(&self) -> &str {
        &self.change.server.address
    }

    /// Whether it is up now.
    #[getter]
    fn is_up(&self) -> bool {
        self.change.is_up
    }

    /// What was wrong at the last check; empty for one that is up.
    #[getter]
    fn detail(&self) -> &str {
        &self.change.detail
    }
}

/// The numbers of a gateway as nested mappings.
pub(crate) fn stats_to_python<'py>(py: Python<'py>, stats: &gateway::Stats) -> PyResult<Bound<'py, PyDict>> {
    let listeners = PyDict::new(py);
    for listener in &stats.listeners {
        let counts = &listener.counts;
        let entry = PyDict::new(py);
        entry.set_item("unauthenticated", listener.unauthenticated)?;
        entry.set_item("bytes_in", counts.bytes_in)?;
        entry.set_item("bytes_out", counts.bytes_out)?;
        entry.set_item("packets_in", PyList::new(py, counts.packets_in)?)?;
        entry.set_item("packets_out", PyList::new(py, counts.packets_out)?)?;
        entry.set_item("publish_delays", counts.publish_delays)?;
        listeners.set_item(&*listener.name, entry)?;
    }
    let servers = PyList::empty(py);
    for server in &stats.servers {
        let entry = PyDict::new(py);
        entry.set_item("server", &*server.server.configured)?;
        entry.set_item("address", &*server.server.address)?;
        entry.set_item("is_up", server.is_up)?;
        entry.set_item("connections", server.connections)?;
        entry.set_item("answered", server.answered)?;
        entry.set_item("connect_seconds", server.connect_time.as_secs_f64())?;
        entry.set_item("failures", server.failures)?;
        servers.append(entry)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("sessions", stats.sessions)?;
    dict.set_item("workers", PyList::new(py, &stats.workers)?)?;
    dict.set_item("events", stats.events)?;
    dict.set_item("dropped", stats.dropped)?;
    dict.set_item("listeners", listeners)?;
    dict.set_item("servers", servers)?;
    Ok(dict)
}

fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
