//! `Gateway`, the handle of a front for MQTT brokers: serve, take, admit, refuse, end, traffic, update, stats, close.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gateway::{Admission, Cause, Event, ListenerOptions, Replace, Token};
use proxyproto_gateway as gateway;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::connection::duplicate;
use crate::error;
use crate::gateway_channels::Channel;
use crate::gateway_events::{self as events, Traffic};
use crate::gateway_options::{cannot_be_meant, read_options, seconds};
use crate::listener::{self, Acceptor};
use crate::options::Keyword;

/// A front for MQTT brokers: it reads each CONNECT, asks who may come in, logs in upstream, and relays. All methods are
/// thread-safe.
///
/// Its threads do not exist in a forked child. There, all methods but `close` raise RuntimeError. `os.fork` closes the child's
/// copies of its connections.
///
/// Args:
///     options: `workers`, `mqtt` and `upstream`, the last two with the names of the broker's configuration; durations are
///         seconds. With `in_process`, clients are admitted with streams, and there need be no servers.
///
/// Raises:
///     ValueError: An option cannot be meant. The text begins with its name, as in `upstream.servers: ...`.
///     TypeError: An option is unknown, or of a wrong type.
///     OSError: There is no thread, descriptor or memory.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Gateway {
    inner: gateway::Gateway,
    /// Readable while there is something to take.
    wake: OwnedFd,
    /// The listeners by name, for the words of their refusals. An acceptor refers to no gateway, so there is no cycle.
    acceptors: Mutex<HashMap<String, Py<Acceptor>>>,
    process: u32,
}

#[pymethods]
impl Gateway {
    #[new]
    #[pyo3(signature = (options, /))]
    fn new(py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = read_options(options)?;
        options.check().map_err(cannot_be_meant)?;
        let start = || {
            let gateway = gateway::Gateway::start(options)?;
            let wake = gateway.wake_fd()?;
            Ok((gateway, wake))
        };
        let (gateway, wake) = py.detach(start).map_err(listener::os_error)?;
        Ok(Self { inner: gateway, wake, acceptors: Mutex::default(), process: std::process::id() })
    }

    /// Check options, and start nothing. Raises ValueError and TypeError as the constructor does.
    #[staticmethod]
    #[pyo3(signature = (options, /))]
    fn check(options: &Bound<'_, PyDict>) -> PyResult<()> {
        read_options(options)?.check().map_err(cannot_be_meant)
    }

    /// Serve the connections of an acceptor until it is closed, or drained and empty. Its refusals are taken too. Without a
    /// channel, clients speak MQTT as it is.
    ///
    /// Raises:
    ///     OSError: There is a listener of this name (EEXIST), or no descriptor.
    #[pyo3(signature = (acceptor, *, name, max_unauthenticated, channel=None))]
    fn serve(
        &self,
        py: Python<'_>,
        acceptor: Py<Acceptor>,
        name: String,
        max_unauthenticated: usize,
        channel: Option<&Bound<'_, Channel>>,
    ) -> PyResult<()> {
        self.of_this_process()?;
        let listener = acceptor.get().shared();
        let options = listener_options(&name, max_unauthenticated, channel);
        // The first refusals may be taken as soon as it is served, so their words come first.
        let had = lock(&self.acceptors).insert(name.clone(), acceptor);
        let served = py.detach(|| self.inner.serve(listener, options));
        if served.is_err() {
            let mut acceptors = lock(&self.acceptors);
            match had {
                Some(had) => acceptors.insert(name, had),
                None => acceptors.remove(&name),
            };
        }
        served.map_err(listener::os_error)
    }

    /// Put other options in force for the connections of a listener that come from now on. Says whether there is one.
    #[pyo3(signature = (name, *, max_unauthenticated, channel=None))]
    fn change_listener(
        &self,
        name: &str,
        max_unauthenticated: usize,
        channel: Option<&Bound<'_, Channel>>,
    ) -> PyResult<bool> {
        self.of_this_process()?;
        Ok(self.inner.update_listener(listener_options(name, max_unauthenticated, channel)))
    }

    /// An fd that is readable while there is something to take, and for ever once closed. It belongs to this object.
    fn fileno(&self) -> i32 {
        self.wake.as_raw_fd()
    }

    /// Take all events that are there. It never waits.
    ///
    /// Of one token the order is Login, Welcomed, Ended, or Login, Refused.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.of_this_process()?;
        let taken = self.inner.take();
        let mut list = Vec::with_capacity(taken.len());
        for event in taken {
            if let Some(event) = self.to_python(py, event)? {
                list.push(event);
            }
        }
        Ok(list)
    }

    /// Let a client in that waits for a decision. Says whether it is still there.
    ///
    /// Args:
    ///     token: The login's.
    ///     username: Goes upstream in place of the CONNECT's; None takes it out.
    ///     password: Likewise.
    ///     client_id: Likewise; it cannot be taken out.
    ///     stream: The fd of one of a pair of UNIX sockets; it is duplicated. A broker at the other one carries the client,
    ///         and no server is asked. It knows the CONNECT; the stream begins with its CONNACK.
    ///
    /// Raises:
    ///     TypeError: An argument has a wrong type.
    ///     OSError: The stream is closed.
    #[pyo3(
        signature = (
            token, *, username=Keyword::default(), password=Keyword::default(), client_id=None, stream=None
        ),
        text_signature = "($self, token, *, username=..., password=..., client_id=None, stream=None)"
    )]
    fn admit(
        &self,
        token: u64,
        username: Keyword<'_, '_>,
        password: Keyword<'_, '_>,
        client_id: Option<String>,
        stream: Option<i32>,
    ) -> PyResult<bool> {
        self.of_this_process()?;
        let mut admission = Admission::default();
        admission.username = username.replacement(|given| {
            given.extract().map_err(|_| error::wrong_type("username", "str or None", given))
        })?;
        admission.password = password.replacement(|given| {
            let bytes = given.cast::<PyBytes>().map(|bytes| bytes.as_bytes().to_vec());
            bytes.map_err(|_| error::wrong_type("password", "bytes or None", given))
        })?;
        admission.client_id = client_id;
        admission.stream = stream.map(duplicate).transpose()?;
        Ok(self.inner.admit(Token::new(token), admission))
    }

    /// Refuse a client that waits for a decision. `reason` is a code. Says whether it is still there.
    ///
    /// Raises:
    ///     ValueError: There is no such code.
    #[pyo3(signature = (token, reason, detail=""))]
    fn refuse(&self, token: u64, reason: &str, detail: &str) -> PyResult<bool> {
        self.of_this_process()?;
        Ok(self.inner.refuse(Token::new(token), cause(reason)?, detail))
    }

    /// End a session, or a login however far it has come. `reason` is a code. Says whether it is still there.
    ///
    /// Raises:
    ///     ValueError: There is no such code.
    #[pyo3(signature = (token, reason, detail=""))]
    fn end(&self, token: u64, reason: &str, detail: &str) -> PyResult<bool> {
        self.of_this_process()?;
        Ok(self.inner.end(Token::new(token), cause(reason)?, detail))
    }

    /// Return whether a client that waits for a decision may still send something: it is there, and has not closed its side.
    fn can_send(&self, token: u64) -> PyResult<bool> {
        self.of_this_process()?;
        Ok(self.inner.can_send(Token::new(token)))
    }

    /// Return what has gone over a session; None once it has ended.
    fn traffic(&self, token: u64) -> PyResult<Option<Traffic>> {
        self.of_this_process()?;
        Ok(self.inner.traffic(Token::new(token)).map(Traffic::from))
    }

    /// Replace the options, but for `workers`. Sessions go on as they are. Raises as the constructor does; then nothing has
    /// changed.
    #[pyo3(signature = (options, /))]
    fn update(&self, options: &Bound<'_, PyDict>) -> PyResult<()> {
        self.of_this_process()?;
        self.inner.update(read_options(options)?).map_err(cannot_be_meant)
    }

    /// Return the numbers of now.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.of_this_process()?;
        events::stats_to_python(py, &self.inner.stats())
    }

    /// Begin to end all sessions, spread evenly over this many seconds. It does not wait.
    #[pyo3(signature = (over, /))]
    fn drain(&self, over: &Bound<'_, PyAny>) -> PyResult<()> {
        self.of_this_process()?;
        self.inner.drain(seconds("over", over)?);
        Ok(())
    }

    /// End all sessions and the threads. It waits up to two seconds for clients to read what is on its way to them. What
    /// is there can still be taken.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }
}

impl<'py> Keyword<'_, 'py> {
    /// What becomes of a field of the CONNECT: without the keyword it is kept, and None takes it out.
    fn replacement<T>(self, convert: impl Fn(&Bound<'py, PyAny>) -> PyResult<T>) -> PyResult<Replace<T>> {
        match self.into_given() {
            None => Ok(Replace::Keep),
            Some(given) if given.is_none() => Ok(Replace::Without),
            Some(given) => convert(&given).map(Replace::With),
        }
    }
}

impl Gateway {
    fn of_this_process(&self) -> PyResult<()> {
        if std::process::id() == self.process {
            return Ok(());
        }
        // A worker may have held a lock at the fork. It does not exist here, so nobody would release it.
        Err(PyRuntimeError::new_err(
            "the gateway was made before a fork, in the parent: make one in each process",
        ))
    }

    fn to_python<'py>(&self, py: Python<'py>, event: Event) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(Some(match event {
            Event::Login(login) => Bound::new(py, events::Login::new(py, login)?)?.into_any(),
            Event::Welcomed(welcomed) => Bound::new(py, events::Welcomed::from(welcomed))?.into_any(),
            Event::Refused(refused) => Bound::new(py, events::Refused::new(py, refused)?)?.into_any(),
            Event::Ended(ended) => Bound::new(py, events::Ended::from(ended))?.into_any(),
            Event::Server(change) => Bound::new(py, events::ServerChange::from(change))?.into_any(),
            Event::Listener(report) => {
                let acceptor = lock(&self.acceptors).get(&*report.listener).map(|found| found.clone_ref(py));
                let Some(acceptor) = acceptor else { return Ok(None) };
                let refusals = acceptor.get().refusals_to_python(py, &report.refusals)?;
                let refusals = refusals.into_pyobject(py)?.into_any().unbind();
                Bound::new(py, events::ListenerReport::new(report.listener, refusals))?.into_any()
            }
            _ => return Ok(None),
        }))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The thread that collects the object holds the interpreter, which the workers never need. Others may run meanwhile.
        Python::attach(|py| py.detach(|| self.inner.close()));
    }
}

fn listener_options(
    name: &str,
    max_unauthenticated: usize,
    channel: Option<&Bound<'_, Channel>>,
) -> ListenerOptions {
    let mut options = ListenerOptions::new(name);
    options.max_unauthenticated = max_unauthenticated;
    options.channel = channel.map(|channel| channel.get().factory());
    options
}

fn cause(code: &str) -> PyResult<Cause> {
    code.parse().map_err(|_| PyValueError::new_err(format!("no such reason: {code:?}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
