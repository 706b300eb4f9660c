//! Converts the options of a gateway, which are nested mappings with the names of the broker's configuration.

use std::time::Duration;

use gateway::{
    Balance, Check, CheckKind, HeaderOut, MqttOptions, Options, PublishRate, Server, UpstreamOptions,
};
use proxyproto_gateway as gateway;
use proxyproto_mqtt::{Version, Versions};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::error;
use crate::gateway_channels::read_client;
use crate::listener_options::flag;

pub(crate) fn read_options(given: &Bound<'_, PyDict>) -> PyResult<Options> {
    let mut options = Options::default();
    each(given, "", |name, value| {
        match name {
            "workers" => options.workers = count(name, value)?,
            "mqtt" => options.mqtt = read_mqtt(&section(name, value)?)?,
            "upstream" => options.upstream = read_upstream(&section(name, value)?)?,
            "in_process" => options.in_process = flag(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(options)
}

fn read_mqtt(given: &Bound<'_, PyDict>) -> PyResult<MqttOptions> {
    let mut mqtt = MqttOptions::default();
    each(given, "mqtt.", |name, value| {
        match name.trim_start_matches("mqtt.") {
            "tls_timeout" => mqtt.tls_timeout = seconds(name, value)?,
            "ws_timeout" => mqtt.ws_timeout = seconds(name, value)?,
            "connect_timeout" => mqtt.connect_timeout = seconds(name, value)?,
            "auth_timeout" => mqtt.auth_timeout = seconds(name, value)?,
            "packet_timeout" => mqtt.packet_timeout = seconds(name, value)?,
            "send_timeout" => mqtt.send_timeout = seconds(name, value)?,
            "max_connect_size" => mqtt.max_connect_size = count(name, value)?,
            "max_packet_size" => {
                mqtt.max_packet_size = error::int_argument(name, value, "from 0 to 4294967295")?;
            }
            "max_send_buffer" => mqtt.max_send_buffer = count(name, value)?,
            "keepalive_factor" => mqtt.keepalive_factor = number(name, value)?,
            "keepalive" => mqtt.keepalive = optional_seconds(name, value)?,
            "strict" => mqtt.strict = flag(name, value)?,
            "publish" => mqtt.publish = rates(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(mqtt)
}

fn read_upstream(given: &Bound<'_, PyDict>) -> PyResult<UpstreamOptions> {
    let mut upstream = UpstreamOptions::default();
    each(given, "upstream.", |name, value| {
        match name.trim_start_matches("upstream.") {
            "servers" => upstream.servers = items(name, value, server)?,
            "balance" => {
                upstream.balance = word(
                    name,
                    value,
                    &[
                        ("least-connections", Balance::LeastConnections),
                        ("round-robin", Balance::RoundRobin),
                        ("client-id", Balance::ClientId),
                    ],
                )?;
            }
            "proxy_protocol" => {
                let words = [("v2", HeaderOut::V2), ("v1", HeaderOut::V1), ("off", HeaderOut::Off)];
                upstream.header = word(name, value, &words)?;
            }
            "secret" => {
                upstream.secret = if value.is_none() {
                    None
                } else {
                    let bytes = value.cast::<PyBytes>();
                    let bytes = bytes.map_err(|_| error::wrong_type(name, "bytes or None", value))?;
                    Some(bytes.as_bytes().into())
                };
            }
            #[cfg(broker)]
            "broker" => {
                upstream.port = if value.is_none() { None } else { crate::broker::port_of(name, value)? };
            }
            "checksum" => upstream.checksum = flag(name, value)?,
            "forward_certificate" => upstream.forward_certificate = flag(name, value)?,
            "connect_timeout" => upstream.connect_timeout = seconds(name, value)?,
            "max_connections" => {
                upstream.max_connections = Some(count(name, value)?).filter(|most| *most > 0);
            }
            "check" => upstream.check = read_check(&section(name, value)?)?,
            "keepalive" => upstream.keepalive = optional_seconds(name, value)?,
            "versions" => upstream.versions = Versions::of(&items(name, value, version)?),
            "tls" => {
                upstream.channel =
                    if value.is_none() { None } else { Some(read_client(&section(name, value)?)?) };
            }
            "resolve_interval" => upstream.resolve_interval = seconds(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    Ok(upstream)
}

fn read_check(given: &Bound<'_, PyDict>) -> PyResult<Check> {
    let mut check = Check::default();
    let (mut is_mqtt, mut client_id) = (false, String::new());
    each(given, "upstream.check.", |name, value| {
        match name.trim_start_matches("upstream.check.") {
            "interval" => check.interval = seconds(name, value)?,
            "fall" => check.fall = error::int_argument(name, value, "from 0 to 4294967295")?,
            "rise" => check.rise = error::int_argument(name, value, "from 0 to 4294967295")?,
            "kind" => is_mqtt = word(name, value, &[("tcp", false), ("mqtt", true)])?,
            "client_id" => client_id = text(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    })?;
    if is_mqtt {
        check.kind = CheckKind::Mqtt { client_id };
    }
    Ok(check)
}

pub(crate) fn each<'py>(
    given: &Bound<'py, PyDict>,
    prefix: &str,
    mut read: impl FnMut(&str, &Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    given.iter().try_for_each(|(name, value)| read(&format!("{prefix}{}", text("a name", &name)?), &value))
}

pub(crate) fn section<'py>(name: &str, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    value.cast::<PyDict>().cloned().map_err(|_| error::wrong_type(name, "dict", value))
}

pub(crate) fn items<'py, T>(
    name: &str,
    value: &Bound<'py, PyAny>,
    mut convert: impl FnMut(&str, &Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    if value.is_instance_of::<PyString>() {
        return Err(error::wrong_type(name, "a list", value));
    }
    let items = value.try_iter().map_err(|_| error::wrong_type(name, "a list", value))?;
    items.map(|item| convert(name, &item?)).collect()
}

fn server(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Server> {
    let server = text(name, value)?;
    server.parse().map_err(|error| PyValueError::new_err(format!("{name}: {error}, not {server:?}")))
}

fn version(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Version> {
    let number = text(name, value)?;
    let known = Version::ALL.into_iter().find(|version| version.number() == number);
    known.ok_or_else(|| PyValueError::new_err(format!("{name}: must be 3.1, 3.1.1 or 5, not {number:?}")))
}

/// Pairs of a count and of the seconds in which it holds.
fn rates(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<PublishRate>> {
    items(name, value, |name, pair| {
        let (count, per): (u32, f64) =
            pair.extract().map_err(|_| error::wrong_type(name, "a list of (count, seconds)", pair))?;
        Ok(PublishRate { count, per: duration(name, per)? })
    })
}

pub(crate) fn word<T: Copy>(name: &str, value: &Bound<'_, PyAny>, words: &[(&str, T)]) -> PyResult<T> {
    let given = text(name, value)?;
    let known = words.iter().find(|(word, _)| *word == given).map(|(_, meaning)| *meaning);
    known.ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        PyValueError::new_err(format!("{name}: must be one of {}, not {given:?}", words.join(", ")))
    })
}

pub(crate) fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_cow()?.into_owned()),
        Err(_) => Err(error::wrong_type(name, "str", value)),
    }
}

pub(crate) fn count(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    error::int_argument(name, value, "0 or more")
}

fn number(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    value.extract().map_err(|_| error::wrong_type(name, "a number", value))
}

pub(crate) fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    duration(name, number(name, value)?)
}

fn optional_seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Duration>> {
    if value.is_none() { Ok(None) } else { seconds(name, value).map(Some) }
}

fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    // A year is more than any of them can be meant to be, and little enough to be added to a clock.
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= Duration::from_hours(366 * 24))
        .ok_or_else(|| PyValueError::new_err(format!("{name}: must be from 0 to 366 days, not {seconds} s")))
}

pub(crate) fn unknown(name: &str) -> PyErr {
    PyTypeError::new_err(format!("unknown option {name}"))
}

#[expect(clippy::needless_pass_by_value, reason = "map_err gives it")]
pub(crate) fn cannot_be_meant(error: gateway::OptionError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
