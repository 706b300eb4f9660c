//! WebSocket towards clients: the upgrade, and then the frames.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proxyproto_mqtt::Start;

use super::frames::{Frames, NORMAL_CLOSURE};
use super::handshake::{Rejection, Status, accept, check_path};
use super::request::Request;
use super::{WebSocketOptions, forwarded};
use crate::cause::Cause;
use crate::channel::layered::Layered;
use crate::channel::{Channel, ChannelFactory, ChannelFault, Flow, Remote, Stage};
use crate::facts::Facts;
use crate::option_error::OptionError;

/// Opens a WebSocket with each client of a listener, in TLS or without. It is immutable: to change an option, give the
/// listener a new one.
pub struct WebSocketServer {
    options: Arc<WebSocketOptions>,
    tls: Option<Arc<dyn ChannelFactory>>,
}

impl WebSocketServer {
    /// Checks the options.
    ///
    /// # Errors
    ///
    /// One of them cannot be meant.
    pub fn new(options: WebSocketOptions) -> Result<Self, OptionError> {
        options.check()?;
        Ok(Self { options: Arc::new(options), tls: None })
    }

    /// Puts the WebSocket into TLS: that of a [`TlsServer`](crate::TlsServer), or another.
    #[must_use]
    pub fn in_tls(self, tls: Arc<dyn ChannelFactory>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The channel of a connection from `peer`, without TLS. Tests use it.
    #[doc(hidden)]
    #[must_use]
    pub fn open_for(&self, peer: IpAddr) -> Box<dyn Channel> {
        Box::new(self.channel(peer, false))
    }

    /// The channel of a connection from `peer`, with a PROXY header or without.
    fn channel(&self, peer: IpAddr, has_header: bool) -> WebSocketChannel {
        WebSocketChannel {
            options: Arc::clone(&self.options),
            peer,
            has_header,
            forwarded: None,
            state: State::Request { received: Vec::new(), searched: 0 },
        }
    }
}

impl fmt::Debug for WebSocketServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketServer").field("options", &self.options).field("tls", &self.tls).finish()
    }
}

impl ChannelFactory for WebSocketServer {
    fn open(&self, remote: Remote<'_>) -> Box<dyn Channel> {
        let (peer, has_header) = match remote {
            Remote::Client(arrival) => (arrival.client().ip(), arrival.header.is_some()),
            Remote::Server(_) => (crate::arrival::NOBODY.ip(), false),
        };
        let websocket = self.channel(peer, has_header);
        match &self.tls {
            None => Box::new(websocket),
            Some(tls) => Box::new(Layered::new(tls.open(remote), websocket)),
        }
    }
}

/// One client's WebSocket.
struct WebSocketChannel {
    options: Arc<WebSocketOptions>,
    peer: IpAddr,
    has_header: bool,
    /// The client that a trusted proxy has named.
    forwarded: Option<SocketAddr>,
    state: State,
}

enum State {
    /// The request is incomplete. Its end does not lie before `searched`.
    Request {
        received: Vec<u8>,
        searched: usize,
    },
    Open(Box<Frames>),
    Failed,
}

impl WebSocketChannel {
    /// Adds bytes of the request. Once it is complete, answers it and returns the bytes behind it.
    fn read_request(&mut self, more: &[u8], answer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, ChannelFault> {
        let State::Request { received, searched } = &mut self.state else { return Ok(None) };
        received.extend_from_slice(more);
        if !is_request(received, self.has_header)? {
            return Ok(None);
        }
        let rest = received.get(*searched..).unwrap_or_default();
        let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") else {
            // The end may have begun.
            *searched = received.len().saturating_sub(3);
            return if received.len() > MAX_REQUEST { Err(too_large()) } else { Ok(None) };
        };
        let end = *searched + end;
        if end + 4 > MAX_REQUEST {
            return Err(too_large());
        }
        let mut lines = std::mem::take(received);
        let behind = lines.split_off(end + 4);
        // With the CRLF of the last line, without the empty one.
        lines.truncate(end + 2);
        let response = self.respond(&lines).map_err(|refused| match refused {
            Refused::Rejected(rejection) => {
                answer.extend_from_slice(rejection.response().as_bytes());
                ChannelFault::new(rejection.detail)
            }
            Refused::Silently(fault) => fault,
        })?;
        answer.extend_from_slice(response.as_bytes());
        self.state = State::Open(Box::default());
        Ok(Some(behind))
    }

    /// The answer that opens the WebSocket.
    fn respond(&mut self, lines: &[u8]) -> Result<String, Refused> {
        let request = Request::parse(lines).map_err(|wrong| {
            Refused::Silently(ChannelFault::new(format!("not an upgrade request: {wrong}")))
        })?;
        check_path(&request, &self.options)?;
        if let Some(options) = &self.options.forwarded {
            let client = forwarded::client(self.peer, &request, options)
                .map_err(|detail| Rejection::new(Status::BadRequest, detail))?;
            self.forwarded = client.map(|client| SocketAddr::new(client, 0));
            if let Some(cause) = client.and_then(|client| options.refuse(client)) {
                let detail = "the address in a header of the request".into();
                return Err(Refused::Silently(ChannelFault { cause: Some(cause), detail }));
            }
        }
        Ok(accept(&request, &self.options)?)
    }
}

/// Why the WebSocket is not opened.
enum Refused {
    Rejected(Rejection),
    /// The connection is closed without an answer.
    Silently(ChannelFault),
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Whether the first line is that of a request; `false` if too few bytes are there. Other bytes are refused early, so that a
/// client of another protocol need not wait for the deadline.
fn is_request(received: &[u8], has_header: bool) -> Result<bool, ChannelFault> {
    if received.starts_with(METHOD) {
        return Ok(true);
    }
    let start = Start::of(received);
    let may_become = |known: &[u8]| known.len() > received.len() && known.starts_with(received);
    if [METHOD, PROXY_V1, PROXY_V2].into_iter().any(may_become) {
        return Ok(false);
    }
    if start.is_proxy_header() && !has_header {
        let cause = Some(Cause::UnexpectedHeader);
        return Err(ChannelFault { cause, detail: "a PROXY header where none is expected".into() });
    }
    if !received.first().is_some_and(u8::is_ascii_alphabetic) {
        return Err(ChannelFault::new(format!("not an upgrade request but {start}")));
    }
    // The whole first line says more.
    let end = received.windows(2).position(|window| window == b"\r\n");
    if end.is_some() || received.len() > MAX_STRANGE_LINE {
        let line = received.get(..end.unwrap_or(received.len())).unwrap_or_default();
        let wrong = Request::parse(line).err().unwrap_or_default();
        return Err(ChannelFault::new(format!("not an upgrade request: {wrong}")));
    }
    Ok(false)
}

fn too_large() -> ChannelFault {
    ChannelFault::new(format!("the upgrade request has more than {MAX_REQUEST} bytes"))
}

impl Channel for WebSocketChannel {
    fn stage(&self) -> Stage {
        match &self.state {
            State::Request { .. } | State::Failed => Stage::WebSocket,
            State::Open(_) => Stage::Open,
        }
    }

    fn start(&mut self, _wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        Ok(())
    }

    fn decode(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        let max = self.options.max_message_size;
        match &mut self.state {
            State::Open(frames) => return frames.decode(received, max, mqtt, answer),
            State::Failed => return Ok(Flow::Ended),
            State::Request { .. } => {}
        }
        match self.read_request(received, answer) {
            Ok(None) => Ok(Flow::Open),
            Ok(Some(behind)) => match &mut self.state {
                State::Open(frames) => frames.decode(&behind, max, mqtt, answer),
                State::Request { .. } | State::Failed => Ok(Flow::Ended),
            },
            Err(fault) => {
                self.state = State::Failed;
                Err(fault)
            }
        }
    }

    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        if let State::Open(frames) = &self.state {
            frames.encode(mqtt, wire);
        }
        Ok(())
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        if let State::Open(frames) = &mut self.state {
            frames.close(NORMAL_CLOSURE, "", wire);
        }
    }

    fn cut_off(&self) -> ChannelFault {
        let has_begun = !matches!(&self.state, State::Request { received, .. } if received.is_empty());
        let cause = if has_begun { None } else { Some(Cause::ClosedEarly) };
        ChannelFault { cause, detail: "closed before the upgrade request was whole".into() }
    }

    fn facts(&mut self) -> Facts {
        Facts { forwarded: self.forwarded, ..Facts::default() }
    }
}

/// The bytes of an upgrade request; browsers send less than 2 KiB.
const MAX_REQUEST: usize = 16 * 1024;
/// A first line that is no request's is looked at up to here.
const MAX_STRANGE_LINE: usize = 1024;
const METHOD: &[u8] = b"GET ";
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ForwardedOptions;

    const PEER: &str = "10.0.0.9";
    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: mqtt\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.2.3\r\n\r\n";
    /// A masked binary message: `hi`.
    const MESSAGE: &[u8] = b"\x82\x82\x01\x02\x03\x04\x69\x6b";

    fn forwarded() -> ForwardedOptions {
        ForwardedOptions::new(["10.0.0.0/8".parse().unwrap()].into_iter().collect())
    }

    fn channel(options: WebSocketOptions, has_header: bool) -> WebSocketChannel {
        WebSocketServer::new(options).unwrap().channel(PEER.parse().unwrap(), has_header)
    }

    /// What comes of bytes in pieces of this size: MQTT, the answer, and the fault.
    fn feed(
        channel: &mut WebSocketChannel,
        bytes: &[u8],
        size: usize,
    ) -> (Vec<u8>, String, Option<ChannelFault>) {
        let (mut mqtt, mut answer) = (Vec::new(), Vec::new());
        for piece in bytes.to_vec().chunks_mut(size) {
            if let Err(fault) = channel.decode(piece, &mut mqtt, &mut answer) {
                return (mqtt, answer.escape_ascii().to_string(), Some(fault));
            }
        }
        (mqtt, answer.escape_ascii().to_string(), None)
    }

    #[test]
    fn an_upgrade_and_a_message_in_any_pieces() {
        let bytes = [REQUEST.as_bytes(), MESSAGE, MESSAGE].concat();
        for size in 1..=bytes.len() {
            let options = WebSocketOptions { forwarded: Some(forwarded()), ..WebSocketOptions::default() };
            let mut channel = channel(options, false);
            assert_eq!(channel.stage(), Stage::WebSocket);
            let (mqtt, answer, fault) = feed(&mut channel, &bytes, size);
            assert_eq!((mqtt, fault, channel.stage()), (b"hihi".to_vec(), None, Stage::Open));
            assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\\r\\n\\r\\n"), "{answer}");
            assert_eq!(channel.facts().forwarded, Some("203.0.113.9:0".parse().unwrap()));
            let mut wire = Vec::new();
            channel.encode(b"ho", &mut wire).unwrap();
            channel.close(&mut wire);
            assert_eq!(wire, b"\x82\x02ho\x88\x02\x03\xe8");
        }
    }

    /// What is refused says so as soon as it can, in any pieces, and once it is refused nothing more comes.
    #[test]
    fn what_is_no_upgrade_is_named() {
        let endless = format!("GET /mqtt HTTP/1.1\r\nX: {}", "y".repeat(17_000));
        let garbage = "x".repeat(2000);
        let table: [(&[u8], &str, &str, &str); 13] = [
            (b"\x10\x1e\0\x04MQTT", "", "ws-failed", "not an upgrade request but MQTT packet type 1 (10"),
            (b"\x16\x03\x01\x02\0", "", "ws-failed", "not an upgrade request but "),
            (
                b"HELO there\r\n\r\n",
                "",
                "ws-failed",
                "not an upgrade request: invalid HTTP request line: HELO there",
            ),
            (
                b"POST /mqtt HTTP/1.1\r\n",
                "",
                "ws-failed",
                "not an upgrade request: unsupported HTTP method; expected GET; got",
            ),
            (
                b"GET /mqtt HTTP/1.0\r\n\r\n",
                "",
                "ws-failed",
                "not an upgrade request: unsupported HTTP version",
            ),
            (
                b"GET /mqtt HTTP/1.1\r\na\r\n\r\n",
                "",
                "ws-failed",
                "not an upgrade request: invalid HTTP header line: a",
            ),
            (garbage.as_bytes(), "", "ws-failed", "not an upgrade request: invalid HTTP request line: xxx"),
            (endless.as_bytes(), "", "ws-failed", "the upgrade request has more than 16384 bytes"),
            (b"GET /other HTTP/1.1\r\n\r\n", "HTTP/1.1 404 ", "ws-failed", "path '/other', MQTT is at /mqtt"),
            (b"GET /mqtt HTTP/1.1\r\n\r\n", "HTTP/1.1 426 ", "ws-failed", "missing Connection header"),
            (b"PROXY TCP4 192.0.2.1 ", "", "unexpected-header", "a PROXY header where none is expected"),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
                "",
                "unexpected-header",
                "a PROXY header where none is expected",
            ),
            (b"PRINT", "", "", ""),
        ];
        for (bytes, answered, cause, detail) in table {
            let step = if bytes.len() > 1000 { 997 } else { 1 };
            for size in (1..=bytes.len()).step_by(step) {
                let mut channel = channel(WebSocketOptions::default(), false);
                let (mqtt, answer, fault) = feed(&mut channel, bytes, size);
                assert!(mqtt.is_empty() && answer.starts_with(answered), "{answer}");
                assert_eq!(channel.stage(), Stage::WebSocket);
                let Some(fault) = fault else {
                    assert_eq!(detail, "", "{}", bytes.escape_ascii());
                    continue;
                };
                assert_eq!(fault.cause.map_or("ws-failed", Cause::code), cause);
                // How much of a strange start is shown depends on the pieces.
                let shown = detail.split(" but ").next().unwrap_or_default();
                assert!(
                    fault.detail.starts_with(if size == bytes.len() { detail } else { shown }),
                    "{}",
                    fault.detail
                );
                let (mqtt, answer, fault) = feed(&mut channel, REQUEST.as_bytes(), 64);
                assert!(mqtt.is_empty() && answer.is_empty() && fault.is_none());
                let mut wire = Vec::new();
                channel.encode(b"ho", &mut wire).unwrap();
                channel.close(&mut wire);
                assert!(wire.is_empty());
            }
        }
    }

    #[test]
    fn a_second_header_is_told_apart_from_one_that_is_not_expected() {
        let mut channel = channel(WebSocketOptions::default(), true);
        let fault = feed(&mut channel, b"\r\n\r\n\0\r\nQUIT\n\x21\x11", 99).2.unwrap();
        assert_eq!(fault.cause, None);
        assert!(
            fault.detail.starts_with("not an upgrade request but a second PROXY header"),
            "{}",
            fault.detail
        );
    }

    #[test]
    fn a_forwarded_address_is_checked_before_the_answer() {
        let denied = forwarded();
        denied.denied.add("203.0.113.0/24".parse().unwrap(), None);
        let garbage = REQUEST.replace("10.1.2.3", "unknown");
        for (request, answered, cause, detail) in [
            (REQUEST, "", Some(Cause::Denied), "the address in a header of the request"),
            (&garbage, "HTTP/1.1 400 ", None, "x-forwarded-for holds 'unknown', which is not an address"),
        ] {
            let options = WebSocketOptions { forwarded: Some(denied.clone()), ..WebSocketOptions::default() };
            let mut channel = channel(options, false);
            let (_, answer, fault) = feed(&mut channel, request.as_bytes(), 4096);
            assert_eq!(fault, Some(ChannelFault { cause, detail: detail.into() }));
            assert_eq!(answer.is_empty(), answered.is_empty());
            assert!(answer.starts_with(answered));
            let client = channel.facts().forwarded.map(|client| client.to_string());
            assert_eq!(client.as_deref(), cause.map(|_| "203.0.113.9:0"), "it is told with its own address");
        }
    }

    #[test]
    fn a_client_that_closes_before_its_request_is_whole() {
        let mut channel = channel(WebSocketOptions::default(), false);
        assert_eq!(channel.cut_off().cause, Some(Cause::ClosedEarly));
        feed(&mut channel, b"GET ", 4);
        let fault = ChannelFault::new("closed before the upgrade request was whole");
        assert_eq!(channel.cut_off(), fault);
    }

    #[test]
    fn options_that_cannot_be_meant_say_why() {
        let plain = WebSocketOptions::default;
        let mut no_headers = forwarded();
        no_headers.headers.clear();
        let table = [
            (WebSocketOptions { path: "mqtt".into(), ..plain() }, "ws.path: must start with a slash"),
            (WebSocketOptions { subprotocols: vec![], ..plain() }, "ws.subprotocols: at least one is needed"),
            (
                WebSocketOptions { subprotocols: vec!["a\r\nb".into()], ..plain() },
                "ws.subprotocols: \"a\\r\\nb\" is not a name",
            ),
            (
                WebSocketOptions { forwarded: Some(no_headers), ..plain() },
                "ws.forwarded.headers: at least one is needed",
            ),
            (
                WebSocketOptions { max_message_size: 0, ..plain() },
                "mqtt.max_packet_size: must be greater than 0",
            ),
        ];
        for (options, said) in table {
            assert_eq!(WebSocketServer::new(options).unwrap_err().to_string(), said);
        }
    }
}
