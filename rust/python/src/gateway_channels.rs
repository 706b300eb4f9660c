//! `Channel`: TLS and WebSocket in front of a listener's MQTT. It converts their options, which are mappings with the names of
//! the broker's configuration.

use std::path::PathBuf;
use std::sync::Arc;

use gateway::{
    CertificateFiles, ChannelFactory, ClientCertificate, ForwardedOptions, TlsClient, TlsClientOptions,
    TlsOptions, TlsServer, TlsVersion, WebSocketOptions, WebSocketServer,
};
use proxyproto_gateway as gateway;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error;
use crate::gateway_options::{cannot_be_meant, each, items, section, text, unknown, word};
use crate::limits;
use crate::listener_options::flag;
use crate::python_tls::PythonTls;

/// What stands between the bytes of a listener's connections and MQTT: TLS, WebSocket, or WebSocket in TLS.
///
/// It never changes. To reload certificates, make another; connections that are open keep theirs.
///
/// Args:
///     tls: The keys of the broker's `tls` section that are not about passwords, and `certificates`; or a callable that makes
///         another TLS for each connection, as `proxyproto_rs.mqtt.front.openssl.Openssl` does.
///     websocket: The keys of the broker's `ws` section, and `max_message_size`. The addresses of `forwarded` are AddressSets
///         or iterables: `trusted`, `denied`, `blocked` and `allowed`.
///
/// Raises:
///     ValueError: An option cannot be meant, or a file of it cannot be used. The text begins with its name.
///     TypeError: An option is unknown, or of a wrong type.
#[pyclass(frozen, module = "proxyproto_rs._core")]
pub(crate) struct Channel {
    factory: Arc<dyn ChannelFactory>,
}

#[pymethods]
impl Channel {
    #[new]
    #[pyo3(signature = (*, tls=None, websocket=None))]
    fn new(tls: Option<&Bound<'_, PyAny>>, websocket: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let tls = tls.map(read_any_tls).transpose()?;
        let websocket = websocket
            .map(|options| WebSocketServer::new(read_websocket(options)?).map_err(cannot_be_meant))
            .transpose()?;
        let factory: Arc<dyn ChannelFactory> = match (tls, websocket) {
            (None, None) => return Err(PyValueError::new_err("tls or websocket is needed")),
            (Some(tls), None) => tls,
            (None, Some(websocket)) => Arc::new(websocket),
            (Some(tls), Some(websocket)) => Arc::new(websocket.in_tls(tls)),
        };
        Ok(Self { factory })
    }
}

impl Channel {
    pub(crate) fn factory(&self) -> Arc<dyn ChannelFactory> {
        Arc::clone(&self.factory)
    }
}

/// TLS towards servers.
pub(crate) fn read_client(given: &Bound<'_, PyDict>) -> PyResult<Arc<dyn ChannelFactory>> {
    let mut options = TlsClientOptions::default();
    let mut files = Files::default();
    each(given, "upstream.tls.", |name, value| {
        match name.trim_start_matches("upstream.tls.") {
            "cafile" => options.cafile = optional(value, |value| path(name, value))?,
            "server_name" => options.server_name = optional(value, |value| text(name, value))?,
            "certfile" => files.certfile = optional(value, |value| path(name, value))?,
            "keyfile" => files.keyfile = optional(value, |value| path(name, value))?,
            "min_version" => options.min_version = version(name, value)?,
            "ciphers" => options.ciphers = optional(value, |value| text(name, value))?,
            "insecure" => options.insecure = flag(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    options.certificate = files.into_certificate();
    let client =
        TlsClient::new(&options).map_err(|error| PyValueError::new_err(format!("upstream.tls.{error}")))?;
    Ok(Arc::new(client))
}

fn read_any_tls(given: &Bound<'_, PyAny>) -> PyResult<Arc<dyn ChannelFactory>> {
    if given.is_callable() {
        return Ok(Arc::new(PythonTls::new(given.clone().unbind())));
    }
    let options = read_tls(&section("tls", given)?)?;
    Ok(Arc::new(TlsServer::new(&options).map_err(unusable)?))
}

fn read_tls(given: &Bound<'_, PyDict>) -> PyResult<TlsOptions> {
    let mut options = TlsOptions::default();
    let mut files = Files::default();
    each(given, "tls.", |name, value| {
        match name.trim_start_matches("tls.") {
            "certfile" => files.certfile = optional(value, |value| path(name, value))?,
            "keyfile" => files.keyfile = optional(value, |value| path(name, value))?,
            "certificates" => options.certificates = items(name, value, certificate)?,
            "cafile" => options.cafile = optional(value, |value| path(name, value))?,
            "crlfile" => options.crlfile = optional(value, |value| path(name, value))?,
            "client_certificate" => {
                let words = [
                    ("none", ClientCertificate::None),
                    ("optional", ClientCertificate::Optional),
                    ("required", ClientCertificate::Required),
                ];
                options.client_certificate = word(name, value, &words)?;
            }
            "min_version" => options.min_version = version(name, value)?,
            "ciphers" => options.ciphers = optional(value, |value| text(name, value))?,
            "alpn" => options.alpn = items(name, value, text)?,
            "strict_x509" => options.strict_x509 = optional(value, |value| flag(name, value))?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    options.certificate = files.into_certificate();
    Ok(options)
}

fn read_websocket(given: &Bound<'_, PyDict>) -> PyResult<WebSocketOptions> {
    let mut options = WebSocketOptions::default();
    each(given, "ws.", |name, value| {
        match name.trim_start_matches("ws.") {
            "path" => options.path = text(name, value)?,
            "subprotocols" => options.subprotocols = items(name, value, text)?,
            "origins" => options.origins = optional(value, |value| items(name, value, text))?,
            "forwarded" => {
                options.forwarded = optional(value, |value| read_forwarded(&section(name, value)?))?;
            }
            "max_message_size" => {
                options.max_message_size = error::int_argument(name, value, "from 0 to 4294967295")?;
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(options)
}

fn read_forwarded(given: &Bound<'_, PyDict>) -> PyResult<ForwardedOptions> {
    let mut options = ForwardedOptions::new(proxyproto_acceptor::AddressSet::new());
    each(given, "ws.forwarded.", |name, value| {
        match name.trim_start_matches("ws.forwarded.") {
            "trusted" => options.trusted = limits::address_set(name, value)?,
            "headers" => options.headers = items(name, value, text)?,
            "denied" => options.denied = limits::address_set(name, value)?,
            "blocked" => options.blocked = limits::address_set(name, value)?,
            "allowed" => options.allowed = optional(value, |value| limits::address_set(name, value))?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(options)
}

/// The files of a certificate, of which the first may be missing.
#[derive(Default)]
struct Files {
    certfile: Option<PathBuf>,
    keyfile: Option<PathBuf>,
}

impl Files {
    fn into_certificate(self) -> Option<CertificateFiles> {
        let Self { certfile, keyfile } = self;
        certfile.map(|certfile| CertificateFiles { certfile, keyfile })
    }
}

/// One of `certificates`.
fn certificate(name: &str, value: &Bound<'_, PyAny>) -> PyResult<CertificateFiles> {
    let mut files = Files::default();
    let prefix = format!("{name}.");
    each(&section(name, value)?, &prefix, |name, value| {
        match name.trim_start_matches(&prefix) {
            "certfile" => files.certfile = Some(path(name, value)?),
            "keyfile" => files.keyfile = optional(value, |value| path(name, value))?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    files.into_certificate().ok_or_else(|| PyValueError::new_err(format!("{prefix}certfile: is needed")))
}

pub(crate) fn optional<T>(
    value: &Bound<'_, PyAny>,
    convert: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>,
) -> PyResult<Option<T>> {
    if value.is_none() { Ok(None) } else { convert(value).map(Some) }
}

pub(crate) fn path(name: &str, value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    value.extract().map_err(|_| error::wrong_type(name, "a path", value))
}

fn version(name: &str, value: &Bound<'_, PyAny>) -> PyResult<TlsVersion> {
    word(name, value, &[("TLSv1.2", TlsVersion::Tls12), ("TLSv1.3", TlsVersion::Tls13)])
}

#[expect(clippy::needless_pass_by_value, reason = "map_err gives it")]
fn unusable(error: gateway::TlsError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
