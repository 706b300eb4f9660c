//! Answers an upgrade request.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

use super::WebSocketOptions;
use super::request::{Request, shown};

/// Why an upgrade is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) status: Status,
    /// For us.
    pub(super) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    BadRequest,
    Forbidden,
    NotFound,
    UpgradeRequired,
}

impl Rejection {
    pub(super) fn new(status: Status, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    /// The answer. The client learns `text`, or the detail.
    pub(super) fn response(&self) -> String {
        let (line, more, text) = match self.status {
            Status::BadRequest => ("400 Bad Request", "", self.detail.as_str()),
            Status::Forbidden => ("403 Forbidden", "", self.detail.as_str()),
            Status::NotFound => ("404 Not Found", "", "no MQTT here"),
            Status::UpgradeRequired => {
                ("426 Upgrade Required", "Upgrade: websocket\r\n", "MQTT is here in WebSocket alone")
            }
        };
        format!(
            "HTTP/1.1 {line}\r\nConnection: close\r\n{more}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{text}\n",
            text.len() + 1
        )
    }
}

/// Whether it is for us.
pub(super) fn check_path(request: &Request<'_>, options: &WebSocketOptions) -> Result<(), Rejection> {
    let path = request.target.split('?').next().unwrap_or_default();
    if path == options.path {
        return Ok(());
    }
    let detail = format!("path '{}', MQTT is at {}", shown(request.target), options.path);
    Err(Rejection::new(Status::NotFound, detail))
}

/// The answer that opens the WebSocket.
pub(super) fn accept(request: &Request<'_>, options: &WebSocketOptions) -> Result<String, Rejection> {
    let bad = |detail| Rejection::new(Status::BadRequest, detail);
    for (name, word) in [("Connection", "upgrade"), ("Upgrade", "websocket")] {
        if !request.list(name).any(|item| item.eq_ignore_ascii_case(word)) {
            let values: Vec<_> = request.list(name).collect();
            let detail = match values.as_slice() {
                [] => format!("missing {name} header"),
                values => format!("invalid {name} header: {}", shown(&values.join(", "))),
            };
            return Err(Rejection::new(Status::UpgradeRequired, detail));
        }
    }
    let key = request.one("Sec-WebSocket-Key").map_err(bad)?;
    if !KEYS.decode(key).is_ok_and(|key| key.len() == 16) {
        return Err(bad(format!("invalid Sec-WebSocket-Key header: {}", shown(key))));
    }
    let version = request.one("Sec-WebSocket-Version").map_err(bad)?;
    if version != "13" {
        return Err(bad(format!("invalid Sec-WebSocket-Version header: {}", shown(version))));
    }
    check_origin(request, options)?;
    let offered: Vec<_> = request.list("Sec-WebSocket-Protocol").collect();
    let Some(subprotocol) = options.subprotocols.iter().find(|ours| offered.contains(&ours.as_str())) else {
        return Err(bad(format!(
            "the client offers no sub-protocol that is served ({})",
            options.subprotocols.first().map_or("", String::as_str)
        )));
    };
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
        accept_key(key)
    ))
}

fn check_origin(request: &Request<'_>, options: &WebSocketOptions) -> Result<(), Rejection> {
    let origin = match request.all("Origin").count() {
        0 => None,
        _ => Some(request.one("Origin").map_err(|detail| Rejection::new(Status::BadRequest, detail))?),
    };
    match (&options.origins, origin) {
        (None, _) => Ok(()),
        (Some(origins), Some(origin)) if origins.iter().any(|known| known == origin) => Ok(()),
        (Some(_), origin) => {
            let detail = match origin {
                None => "origin: missing Origin header".into(),
                Some(origin) => format!("origin: invalid Origin header: {}", shown(origin)),
            };
            Err(Rejection::new(Status::Forbidden, detail))
        }
    }
}

/// Shows that it was read by somebody who knows WebSocket (RFC 6455, section 4.2.2).
fn accept_key(key: &str) -> String {
    let digest =
        Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    KEYS.encode(digest)
}

/// Small clients leave bits behind the last byte of their key, and everybody takes it.
const KEYS: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

#[cfg(test)]
mod tests {
    use super::*;

    /// A good request, in which the header with this name has another value, or with `None` is left out.
    fn answer(change: (&str, Option<&str>), options: &WebSocketOptions) -> Result<String, Rejection> {
        let (changed, value) = change;
        let mut text = "GET /mqtt HTTP/1.1\r\n".to_owned();
        let headers = [
            ("Host", "broker"),
            ("Connection", "keep-alive, Upgrade"),
            ("Upgrade", "WebSocket"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "chat, mqttv3.1, mqtt"),
        ];
        for (name, good) in headers {
            if let Some(value) = if name == changed { value } else { Some(good) } {
                text.extend([name, ": ", value, "\r\n"]);
            }
        }
        if let Some(value) = value.filter(|_| !headers.iter().any(|(name, _)| *name == changed)) {
            text.extend([changed, ": ", value, "\r\n"]);
        }
        accept(&Request::parse(text.as_bytes()).unwrap(), options)
    }

    #[test]
    fn the_example_of_the_standard() {
        let response = answer(("", None), &WebSocketOptions::default()).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(response.ends_with("\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"), "ours that is best");
        assert!(!response.contains("Extensions"), "no compression");
    }

    #[test]
    fn what_is_wrong_in_a_request() {
        let options = WebSocketOptions {
            origins: Some(vec!["http://good.example".into()]),
            ..WebSocketOptions::default()
        };
        let plain = WebSocketOptions::default();
        let table = [
            (&plain, "Connection", None, 426, "missing Connection header"),
            (&plain, "Connection", Some("close"), 426, "invalid Connection header: close"),
            (&plain, "Upgrade", None, 426, "missing Upgrade header"),
            (&plain, "Upgrade", Some("h2c"), 426, "invalid Upgrade header: h2c"),
            (&plain, "Sec-WebSocket-Key", None, 400, "missing Sec-WebSocket-Key header"),
            (&plain, "Sec-WebSocket-Key", Some("AAAA"), 400, "invalid Sec-WebSocket-Key header: AAAA"),
            (&plain, "Sec-WebSocket-Key", Some("*"), 400, "invalid Sec-WebSocket-Key header: *"),
            (&plain, "Sec-WebSocket-Version", None, 400, "missing Sec-WebSocket-Version header"),
            (&plain, "Sec-WebSocket-Version", Some("8"), 400, "invalid Sec-WebSocket-Version header: 8"),
            (
                &plain,
                "Sec-WebSocket-Protocol",
                None,
                400,
                "the client offers no sub-protocol that is served (mqtt)",
            ),
            (
                &plain,
                "Sec-WebSocket-Protocol",
                Some("MQTT"),
                400,
                "the client offers no sub-protocol that is served (mqtt)",
            ),
            (&options, "Origin", None, 403, "origin: missing Origin header"),
            (
                &options,
                "Origin",
                Some("http://evil.example"),
                403,
                "origin: invalid Origin header: http://evil.example",
            ),
        ];
        for (options, name, value, status, detail) in table {
            let rejection = answer((name, value), options).unwrap_err();
            assert_eq!(rejection.detail, detail);
            assert!(rejection.response().starts_with(&format!("HTTP/1.1 {status} ")), "{name}");
        }
        assert!(answer(("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZR==")), &plain).is_ok());
        assert!(answer(("Origin", Some("http://good.example")), &options).is_ok());
        assert!(answer(("Origin", Some("http://any.example")), &plain).is_ok());
    }

    #[test]
    fn only_the_path_counts() {
        let options = WebSocketOptions::default();
        for (target, is_ours) in [("/mqtt", true), ("/mqtt?token=1", true), ("/", false), ("/mqtt/", false)] {
            let text = format!("GET {target} HTTP/1.1\r\n");
            let checked = check_path(&Request::parse(text.as_bytes()).unwrap(), &options);
            assert_eq!(checked.is_ok(), is_ours, "{target}");
        }
        let request = Request::parse(b"GET /other HTTP/1.1\r\n").unwrap();
        let rejection = check_path(&request, &options).unwrap_err();
        assert_eq!(rejection.detail, "path '/other', MQTT is at /mqtt");
        assert!(rejection.response().ends_with("Content-Length: 13\r\n\r\nno MQTT here\n"));
    }
}
