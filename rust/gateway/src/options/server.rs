//! Where a server is: a host and a port, or the path of a UNIX socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A server behind the gateway, as it is configured.
///
/// ```
/// use proxyproto_gateway::Server;
///
/// for text in ["10.0.1.5:1883", "[2001:db8::5]:1883", "mqtt-2.internal:1883", "unix:/run/mosquitto.sock", "unix:@broker"] {
///     assert_eq!(text.parse::<Server>()?.to_string(), text);
/// }
/// assert!("10.0.1.5".parse::<Server>().is_err());
/// # Ok::<_, proxyproto_gateway::ServerError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Server {
    /// An address.
    Address(SocketAddr),
    /// A name, which is resolved again and again; every address of it counts as a server.
    Name(String, u16),
    /// The path of a UNIX socket. One that begins with `@` is an abstract name.
    Unix(String),
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path has 108 bytes, with a NUL at the end or in front.
            return match path.len() {
                1..108 if !path.contains('\0') => Ok(Self::Unix(path.into())),
                _ => Err(ServerError),
            };
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(ServerError) } else { Ok(Self::Address(address)) };
        }
        let (name, port) = text.rsplit_once(':').ok_or(ServerError)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ServerError)?;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let is_address = name.parse::<IpAddr>().is_ok();
        if name.is_empty() || !is_name || is_address {
            return Err(ServerError);
        }
        Ok(Self::Name(name.into(), port))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// A text that names no server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerError;

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a server is \"host:port\", \"[IPv6 address]:port\" or \"unix:/path\"")
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_server() {
        let texts = [
            "",
            "host",
            "host:",
            "host:0",
            ":1883",
            "host:65536",
            "10.0.0.1:0",
            "2001:db8::5",
            "2001:db8::5:1883",
            "ho st:1",
            "unix:",
            "mqtt://host:1883",
        ];
        for text in texts {
            assert_eq!(text.parse::<Server>(), Err(ServerError), "{text}");
        }
        assert!(format!("unix:{}", "x".repeat(108)).parse::<Server>().is_err());
        assert!(format!("unix:{}", "x".repeat(107)).parse::<Server>().is_ok());
    }
}
