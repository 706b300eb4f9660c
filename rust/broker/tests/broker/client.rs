//! A client that sends bytes and reads packets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use proxyproto_broker::{Acl, Broker, Options, Secret};
use proxyproto_codec::{Header, Transport};
use tokio::runtime;

pub fn broker(acl: Acl) -> Broker {
    Broker::start(options(), acl).unwrap()
}

pub fn options() -> Options {
    let mut options = Options::default();
    options.threads = 1;
    options
}

/// What a CONNECT says.
#[derive(Clone)]
pub struct Login {
    pub version: u8,
    pub client_id: String,
    pub username: String,
    pub is_clean: bool,
    /// Of MQTT 5, in seconds.
    pub session_expiry: u32,
    pub will: Option<(String, String)>,
    pub password: Vec<u8>,
}

impl Login {
    pub fn new(broker: &Broker, client_id: &str) -> Self {
        Self {
            version: 4,
            client_id: client_id.into(),
            username: "anna".into(),
            is_clean: true,
            session_expiry: 0,
            will: None,
            password: password(broker.secret(), "192.0.2.7:1"),
        }
    }

    pub fn v5(broker: &Broker, client_id: &str) -> Self {
        Self { version: 5, ..Self::new(broker, client_id) }
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut body = text("MQTT");
        let will = if self.will.is_some() { 0x04 } else { 0 };
        body.extend([self.version, 0xc0 | will | (u8::from(self.is_clean) << 1), 0, 60]);
        if self.version == 5 {
            body.extend([5, 0x11]);
            body.extend(self.session_expiry.to_be_bytes());
        }
        body.extend(text(&self.client_id));
        if let Some((topic, payload)) = &self.will {
            body.extend(if self.version == 5 { vec![0] } else { vec![] });
            body.extend(text(topic));
            body.extend(text(payload));
        }
        body.extend(text(&self.username));
        body.extend(bytes(&self.password));
        packet(0x10, &body)
    }

    /// The client, and the code of the CONNACK.
    pub fn try_connect(&self, broker: &Broker) -> (Client, u8) {
        let mut client = Client::open(broker, self.version);
        client.send(&self.packet());
        let (kind, body) = client.read();
        assert_eq!(kind, 0x20, "a CONNACK");
        client.session_present = body[0] == 1;
        (client, body[1])
    }

    pub fn connect(&self, broker: &Broker) -> Client {
        let (client, code) = self.try_connect(broker);
        assert_eq!(code, 0, "the code of the CONNACK");
        client
    }
}

pub fn password(secret: &Secret, source: &str) -> Vec<u8> {
    let source: SocketAddr = source.parse().unwrap();
    let header = Header::v2(source.into(), source.into(), Transport::Stream, &[], false).unwrap();
    [secret.as_bytes(), header.raw()].concat()
}

pub struct Client {
    stream: TcpStream,
    version: u8,
    next_id: u16,
    pub session_present: bool,
}

impl Client {
    /// As the gateway connects.
    pub fn open(broker: &Broker, version: u8) -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let stream = runtime.block_on(broker.port().unwrap().connect()).unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, version, next_id: 0, session_present: false }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet: its first byte, and what is behind the length.
    pub fn read(&mut self) -> (u8, Vec<u8>) {
        let mut first = [0; 1];
        self.stream.read_exact(&mut first).unwrap();
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let mut byte = [0; 1];
            self.stream.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (first[0], body)
    }

    /// Whether the broker closes without another word but a DISCONNECT.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = self.stream.read_to_end(&mut rest);
        rest.is_empty() || rest[0] == 0xe0
    }

    /// Subscribes with QoS 1; the code of the SUBACK.
    pub fn subscribe(&mut self, filter: &str) -> u8 {
        let mut body = self.id().to_be_bytes().to_vec();
        body.extend(self.no_properties());
        body.extend(text(filter));
        body.push(1);
        self.send(&packet(0x82, &body));
        let (kind, body) = self.read();
        assert_eq!(kind, 0x90, "a SUBACK");
        *body.last().unwrap()
    }

    /// Publishes with QoS 1; the code of the PUBACK.
    pub fn publish(&mut self, topic: &str, payload: &str, retain: bool) -> u8 {
        let mut body = text(topic);
        body.extend(self.id().to_be_bytes());
        body.extend(self.no_properties());
        body.extend(payload.as_bytes());
        self.send(&packet(0x32 | u8::from(retain), &body));
        let (kind, body) = self.read();
        assert_eq!(kind, 0x40, "a PUBACK");
        body.get(2).copied().unwrap_or(0)
    }

    /// The topic and the payload of the next message, which is answered.
    pub fn message(&mut self) -> (String, String) {
        let (kind, body) = self.read();
        assert_eq!(kind & 0xf0, 0x30, "a PUBLISH");
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
        let mut rest = &body[2 + length..];
        if kind & 0x06 != 0 {
            let id = [rest[0], rest[1]];
            rest = &rest[2..];
            self.send(&packet(0x40, &id));
        }
        if self.version == 5 {
            rest = &rest[1 + usize::from(rest[0])..];
        }
        (topic, String::from_utf8(rest.to_vec()).unwrap())
    }

    pub fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        assert_eq!(self.read(), (0xd0, vec![]), "a PINGRESP");
    }

    /// Says goodbye and closes, as clients do. rmqtt does not close by itself.
    pub fn disconnect(mut self) {
        self.send(&[0xe0, 0]);
    }

    /// Says goodbye, stops sending, and waits until the broker has seen it.
    pub fn go_away(&mut self) {
        self.send(&[0xe0, 0]);
        self.stream.shutdown(Shutdown::Write).unwrap();
        assert!(self.is_closed());
    }

    fn id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    fn no_properties(&self) -> Vec<u8> {
        if self.version == 5 { vec![0] } else { vec![] }
    }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
        packet.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

pub fn text(text: &str) -> Vec<u8> {
    bytes(text.as_bytes())
}

pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
