//! `Acceptor`, the handle of a listener: bind, take, update, options, stats, refusals, close.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use acceptor::{BindOptions, Closed, Inherited, Listener, Options, Severity, Socket, Wording};
use proxyproto_acceptor as acceptor;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::connection::Connection;
use crate::endpoint;
use crate::error;
use crate::listener_options::{self, Changes, Given};
use crate::wording;

/// A listening socket that the background thread serves. All methods are thread-safe.
///
/// The thread does not exist in a forked child. There, methods that need it raise RuntimeError.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Acceptor {
    /// A gateway that serves it has another reference.
    listener: Arc<Listener>,
    given: Mutex<Given>,
}

pub(crate) type RefusalFields<'py> = (
    &'static str,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    String,
    Bound<'py, PyBytes>,
    String,
    u64,
    f64,
);
type Numbers<'py> = (Bound<'py, PyDict>, usize, usize, usize, u64, usize, HeaderTimes);

/// How many headers were whole within so many seconds, how many there were, and how many seconds they took together.
type HeaderTimes = (Vec<(f64, u64)>, u64, f64);
pub(crate) type TakenRefusals<'py> = (Vec<RefusalFields<'py>>, Vec<(u8, String)>, u64);

#[pymethods]
impl Acceptor {
    /// Bind `address`, which has the form of the socket module's addresses with a numeric host, and serve it.
    #[staticmethod]
    #[pyo3(signature = (address, *, backlog, reuse_port, dualstack, ahead, options))]
    fn bind(
        address: &Bound<'_, PyTuple>,
        backlog: &Bound<'_, PyAny>,
        reuse_port: &Bound<'_, PyAny>,
        dualstack: bool,
        ahead: Option<&Bound<'_, PyAny>>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let address = socket_address(address)?;
        let backlog = queue_length(backlog)?;
        let reuse_port = listener_options::flag("reuse_port", reuse_port)?;
        let bind = BindOptions::default().backlog(backlog).reuse_port(reuse_port).dualstack(dualstack);
        Self::serve(options, ahead, || Socket::bind(address, bind))
    }

    /// Bind a UNIX socket and serve it.
    #[staticmethod]
    #[pyo3(signature = (path, *, backlog, mode, ahead, options))]
    fn bind_unix(
        path: &[u8],
        backlog: &Bound<'_, PyAny>,
        mode: Option<&Bound<'_, PyAny>>,
        ahead: Option<&Bound<'_, PyAny>>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let path = Path::new(OsStr::from_bytes(path));
        let backlog = queue_length(backlog)?;
        let mode = mode.map(permissions).transpose()?;
        Self::serve(options, ahead, || Socket::bind_unix(path, backlog, mode))
    }

    /// Serve a duplicate of a listening socket that is already bound.
    #[staticmethod]
    #[pyo3(signature = (fd, *, backlog, ahead, options))]
    fn adopt(
        fd: i32,
        backlog: &Bound<'_, PyAny>,
        ahead: Option<&Bound<'_, PyAny>>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let backlog = queue_length(backlog)?;
        if fd < 0 {
            return Err(PyOSError::new_err((libc::EBADF, "Bad file descriptor")));
        }
        // SAFETY: -1 is excluded above. The number may still not be an open file, or another thread may close it during
        // the call. The kernel then answers EBADF or duplicates the file that has come in its place, as for os.dup.
        #[expect(unsafe_code, reason = "Python hands over a number")]
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Self::serve(options, ahead, || Socket::adopt(fd.try_clone_to_owned()?, backlog))
    }

    /// Return a new fd of the listening socket. Never accept from it, and keep it non-blocking.
    fn dup_listening(&self) -> PyResult<i32> {
        Ok(self.listener.listening().map_err(os_error)?.into_raw_fd())
    }

    /// Return a new fd that is readable while there is something to take. It stays readable once the acceptor is closed
    /// or drained.
    fn dup_wake_fd(&self) -> PyResult<i32> {
        Ok(self.listener.wake_fd().map_err(os_error)?.into_raw_fd())
    }

    /// Return the listening address as log lines write it.
    fn name(&self) -> String {
        self.listener.local_addr().to_string()
    }

    /// Take one connection, or return None.
    ///
    /// Raises:
    ///     OSError: EBADF: the acceptor is closed, or drained and empty.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Py<Connection>>> {
        Ok(self.take_at_most(py, 1)?.pop())
    }

    /// Take at most `most` of the ready connections, in the order in which they became ready.
    #[pyo3(signature = (most=usize::MAX, /), text_signature = "($self, most=..., /)")]
    fn take_all(&self, py: Python<'_>, most: usize) -> PyResult<Vec<Py<Connection>>> {
        self.take_at_most(py, most)
    }

    /// Take the refusals: the records, the log lines as (level, text), and how many records were dropped for want of
    /// room. Return None if there is nothing.
    fn take_refusals<'py>(&self, py: Python<'py>) -> PyResult<Option<TakenRefusals<'py>>> {
        let taken = self.listener.take_refusals().map_err(inherited)?;
        if taken.records.is_empty() && taken.lines.is_empty() && taken.dropped == 0 {
            return Ok(None);
        }
        self.refusals_to_python(py, &taken).map(Some)
    }

    /// Return the count of each outcome; how many connections are pending, ready and open; how often accepting paused;
    /// and how many connections may be pending.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Numbers<'py>> {
        let stats = self.listener.stats().map_err(inherited)?;
        let outcomes = PyDict::new(py);
        for (outcome, count) in stats.outcomes {
            outcomes.set_item(outcome.name(), count)?;
        }
        let times = stats.header_times;
        let within = times.within.iter().map(|(bound, count)| (bound.as_secs_f64(), *count)).collect();
        let times = (within, times.count, times.total.as_secs_f64());
        Ok((outcomes, stats.pending, stats.ready, stats.open, stats.pauses, stats.max_pending, times))
    }

    /// Replace options, named by their keywords: all of them or none.
    fn update(&self, py: Python<'_>, changes: &Bound<'_, PyDict>) -> PyResult<()> {
        // A thread that waits for this lock holds the interpreter. So no Python may run under the lock: it would wait
        // for the interpreter.
        let changes = Changes::read(changes)?;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let (options, now_given) = changes.apply(py, &self.listener.options(), &given)?;
        self.listener.update(options).map_err(listener_options::cannot_be_meant)?;
        *given = now_given;
        Ok(())
    }

    /// Return the options in force, named by their keywords.
    fn options<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (options, given) = {
            let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            (self.listener.options(), given.clone_ref(py))
        };
        let in_force = listener_options::to_python(py, &options, &given)?;
        in_force.set_item("max_pending", self.listener.max_pending())?;
        Ok(in_force)
    }

    /// Stop accepting. Connections accepted already may complete their header and be taken. Then the acceptor closes.
    fn drain(&self) -> PyResult<()> {
        self.listener.drain().map_err(inherited)
    }

    /// Close the listening socket and the connections that were not taken, and wake all waiters for good.
    fn close(&self, py: Python<'_>) {
        // This waits until the background thread has finished its turn, which never needs the interpreter.
        py.detach(|| self.listener.close());
    }
}

impl Acceptor {
    fn serve(
        keywords: &Bound<'_, PyDict>,
        ahead: Option<&Bound<'_, PyAny>>,
        socket: impl FnOnce() -> io::Result<Socket>,
    ) -> PyResult<Self> {
        // The options come first: a mistake in them must not leave a socket file behind.
        let (options, given) =
            Changes::read(keywords)?.apply(keywords.py(), &Options::default(), &Given::new())?;
        let ahead =
            ahead.map(|ahead| error::int_argument("ahead", ahead, "from 0 to 4294967295")).transpose()?;
        let start = |socket: Socket| {
            let socket = match ahead {
                Some(ahead) => socket.with_ahead(ahead),
                None => socket,
            };
            Listener::start(socket, options)
        };
        let listener = socket().and_then(start).map_err(os_error)?;
        Ok(Self { listener: Arc::new(listener), given: Mutex::new(given) })
    }

    pub(crate) fn shared(&self) -> Arc<Listener> {
        Arc::clone(&self.listener)
    }

    /// The records, the log lines as (level, text), and how many records were dropped for want of room.
    pub(crate) fn refusals_to_python<'py>(
        &self,
        py: Python<'py>,
        taken: &acceptor::TakenRefusals,
    ) -> PyResult<TakenRefusals<'py>> {
        let wording = self.wording();
        let fields = |refusal| fields(py, refusal, wording);
        let records = taken.records.iter().map(fields).collect::<PyResult<Vec<_>>>()?;
        let lines = taken.lines.iter().map(|line| (level(line.severity()), line.text_in(wording))).collect();
        Ok((records, lines, taken.dropped))
    }

    fn wording(&self) -> Wording {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        wording::wording(given.has_client_limits())
    }

    fn take_at_most(&self, py: Python<'_>, most: usize) -> PyResult<Vec<Py<Connection>>> {
        let taken = if self.listener.is_on_demand() {
            // This makes system calls, and waits while another thread forks.
            py.detach(|| self.listener.take(most))
        } else {
            self.listener.take(most)
        };
        let connections = taken.map_err(|closed| match closed {
            Closed::Inherited => inherited(Inherited),
            Closed::Closed => PyOSError::new_err((libc::EBADF, "the listener is closed")),
        })?;
        connections.into_iter().map(|connection| Connection::hand_over(py, connection)).collect()
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // The thread that collects the object holds the interpreter. Another thread may be about to fork: it has paused
        // the background thread and waits for the interpreter. So the interpreter is released here.
        Python::attach(|py| py.detach(|| self.listener.close()));
    }
}

fn socket_address(address: &Bound<'_, PyTuple>) -> PyResult<SocketAddr> {
    if address.len() == 4 {
        let (host, port, flowinfo, scope_id) = address.extract()?;
        if let IpAddr::V6(host) = host {
            return Ok(SocketAddrV6::new(host, port, flowinfo, scope_id).into());
        }
        return Ok(SocketAddr::new(host, port));
    }
    let (host, port) = address.extract()?;
    Ok(SocketAddr::new(host, port))
}

fn queue_length(backlog: &Bound<'_, PyAny>) -> PyResult<u32> {
    error::int_argument("backlog", backlog, "from 0 to 4294967295")
}

fn permissions(mode: &Bound<'_, PyAny>) -> PyResult<u32> {
    let range = "from 0 to 0o7777";
    let permissions = error::int_argument("mode", mode, range)?;
    if permissions > 0o7777 { Err(error::out_of_range("mode", range, mode)) } else { Ok(permissions) }
}

/// An OSError with errno. Python picks its subclass by the errno; `From<io::Error>` would give a text only.
pub(crate) fn os_error(error: io::Error) -> PyErr {
    let errno = match (error.raw_os_error(), error.kind()) {
        (Some(errno), _) => errno,
        (None, io::ErrorKind::InvalidInput) => libc::EINVAL,
        (None, io::ErrorKind::NotConnected) => libc::EBADF,
        (None, io::ErrorKind::Unsupported) => libc::EAFNOSUPPORT,
        (None, _) => return error.into(),
    };
    let text = error.to_string();
    // Python's text shows the number already.
    let text = text.strip_suffix(&format!(" (os error {errno})")).unwrap_or(&text);
    PyOSError::new_err((errno, text.to_owned()))
}

fn inherited(error: Inherited) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

fn fields<'py>(
    py: Python<'py>,
    refusal: &acceptor::Refusal,
    wording: Wording,
) -> PyResult<RefusalFields<'py>> {
    let client = refusal.client.map(|client| endpoint::client_to_python(py, client)).transpose()?;
    let time = refusal.time.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
    Ok((
        refusal.outcome.name(),
        endpoint::peer_to_python(py, &refusal.peer)?,
        client,
        refusal.detail_in(wording),
        PyBytes::new(py, &refusal.first_bytes),
        refusal.listener.to_string(),
        refusal.count,
        time,
    ))
}

/// The level as the logging module numbers it.
const fn level(severity: Severity) -> u8 {
    match severity {
        Severity::Error => 40,
        _ => 30,
    }
}
