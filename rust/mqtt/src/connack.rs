//! The answer to a CONNECT: read from an upstream server, changed on its way, or written by ourselves.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::code;
use crate::property::{Block, push_properties, read_block};
use crate::reader::{Reader, Span, Wrong};
use crate::writer::packet;
use crate::{
    Detail, EncodeError, Fault, Field, Limits, PacketType, Properties, Property, Reason, Sender, Value,
    Version,
};

/// A valid CONNACK, on top of its own bytes. `B` holds them.
///
/// ```
/// use proxyproto_mqtt::{Connack, Property, Reason, Value, Version};
///
/// let refused = Connack::refuse(Reason::BadCredentials, Version::Mqtt5).unwrap();
/// assert_eq!(refused.raw(), b"\x20\x03\x00\x86\x00");
///
/// // A server takes packets of 1 MiB, the front less.
/// let received = Connack::decode(b"\x20\x08\x00\x00\x05\x27\x00\x10\x00\x00", Version::Mqtt5)?;
/// let size = received.maximum_packet_size().unwrap_or(u32::MAX).min(65536);
/// let sent = received.with(&[Property { id: Property::MAXIMUM_PACKET_SIZE, value: Value::Four(size) }])?;
/// assert_eq!(sent.raw(), b"\x20\x08\x00\x00\x05\x27\x00\x01\x00\x00");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connack<B = Box<[u8]>> {
    raw: B,
    parsed: Parsed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parsed {
    version: Version,
    session_present: bool,
    code: u8,
    properties: Span,
}

impl<'a> Connack<&'a [u8]> {
    /// Reads one CONNACK, of which all bytes are here and nothing else, in a session of `version`.
    ///
    /// A server that does not know MQTT 5 answers it in the form of 3.1.1. That is read too, and
    /// [`version`](Self::version) is then 3.1.1.
    ///
    /// # Errors
    ///
    /// `malformed-packet` if it is another packet, or breaks a rule.
    pub fn decode(packet: &'a [u8], version: Version) -> Result<Self, Fault> {
        let mut reader = Limits::new(Sender::Server, version, u32::MAX).body(packet, PacketType::Connack)?;
        let parsed = read(&mut reader, version).map_err(Fault::malformed)?;
        Ok(Self { raw: packet, parsed })
    }
}

impl Connack {
    /// The packet that lets a client in.
    #[must_use]
    pub fn accept(version: Version, session_present: bool) -> Self {
        Self::new(version, session_present, 0)
    }

    /// The packet that refuses a client. `None` where the table closes the connection without one.
    #[must_use]
    pub fn refuse(reason: Reason, version: Version) -> Option<Self> {
        reason.connack(version).map(|code| Self::new(version, false, code))
    }

    fn new(version: Version, session_present: bool, code: u8) -> Self {
        let flags = u8::from(session_present);
        let (raw, properties): (Box<[u8]>, _) = match version {
            Version::Mqtt31 | Version::Mqtt311 => (Box::new([FIRST_BYTE, 2, flags, code]), Span::default()),
            Version::Mqtt5 => (Box::new([FIRST_BYTE, 3, flags, code, 0]), Span::new(5, 5)),
        };
        Self { raw, parsed: Parsed { version, session_present, code, properties } }
    }
}

impl<B: AsRef<[u8]>> Connack<B> {
    /// The version in whose form the packet is written.
    pub const fn version(&self) -> Version {
        self.parsed.version
    }

    /// Whether the server has a session of the client.
    pub const fn session_present(&self) -> bool {
        self.parsed.session_present
    }

    /// The code: 0 lets the client in.
    pub const fn code(&self) -> u8 {
        self.parsed.code
    }

    /// What the code means, in the words of MQTT.
    pub const fn code_text(&self) -> &'static str {
        code::text(self.code(), self.version())
    }

    /// Why the server has refused the client; `None` if it has let it in.
    ///
    /// `bad-credentials` is what a wrong password can cause. `upstream-unavailable` may be better on another
    /// server. All others are `upstream-refused`.
    pub const fn refused(&self) -> Option<Reason> {
        match (self.version(), self.code()) {
            (_, 0) => None,
            (Version::Mqtt5, 0x86 | 0x87 | 0x8c) | (Version::Mqtt31 | Version::Mqtt311, 4 | 5) => {
                Some(Reason::BadCredentials)
            }
            (Version::Mqtt5, 0x88 | 0x89 | 0x9c | 0x9d) | (Version::Mqtt31 | Version::Mqtt311, 3) => {
                Some(Reason::UpstreamUnavailable)
            }
            _ => Some(Reason::UpstreamRefused),
        }
    }

    /// The properties. Only MQTT 5 has any.
    pub fn properties(&self) -> Properties<'_> {
        Properties::new(self.parsed.properties.bytes(self.raw()))
    }

    /// The reason in the server's words.
    pub fn reason_string(&self) -> Option<&str> {
        self.properties().text(Property::REASON_STRING)
    }

    /// The client id that the server has chosen.
    pub fn assigned_client_identifier(&self) -> Option<&str> {
        self.properties().text(Property::ASSIGNED_CLIENT_IDENTIFIER)
    }

    /// The keep-alive in seconds that counts in the place of the client's.
    pub fn server_keep_alive(&self) -> Option<u16> {
        match self.properties().get(Property::SERVER_KEEP_ALIVE)? {
            Value::Two(seconds) => Some(seconds),
            _ => None,
        }
    }

    /// The largest packet in bytes that the server takes, if it has said so.
    pub fn maximum_packet_size(&self) -> Option<u32> {
        self.properties().four(Property::MAXIMUM_PACKET_SIZE)
    }

    /// How long the server keeps the session after its connection, in seconds, if it is not what the client
    /// has asked for.
    pub fn session_expiry_interval(&self) -> Option<u32> {
        self.properties().four(Property::SESSION_EXPIRY_INTERVAL)
    }

    /// The bytes of the packet, exactly as received or as they are to be sent.
    pub fn raw(&self) -> &[u8] {
        self.raw.as_ref()
    }

    /// The same packet with bytes of its own.
    #[must_use]
    pub fn to_owned(&self) -> Connack {
        Connack { raw: self.raw().into(), parsed: self.parsed }
    }

    /// The same packet with these properties, each in the place of one that it has already. In 3.1 and 3.1.1,
    /// which have no properties, it is the same packet.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] for a property that is too long, or that a CONNACK cannot have.
    pub fn with(&self, properties: &[Property<'_>]) -> Result<Connack, EncodeError> {
        if self.version() != Version::Mqtt5 {
            return Ok(self.to_owned());
        }
        let kept = self.properties().filter(|old| properties.iter().all(|new| new.id != old.id));
        let mut body = Vec::with_capacity(self.raw().len() + 64);
        body.extend([u8::from(self.session_present()), self.code()]);
        push_properties(&mut body, kept.chain(properties.iter().copied()))?;
        let bytes = packet(FIRST_BYTE, &body)?;
        let connack =
            Connack::decode(&bytes, Version::Mqtt5).map_err(|fault| EncodeError::Invalid(fault.detail))?;
        Ok(connack.to_owned())
    }
}

fn read(reader: &mut Reader<'_>, version: Version) -> Result<Parsed, Wrong> {
    let start = reader.at();
    let flags = reader.byte(Field::Flags)?;
    let code = reader.byte(Field::Code)?;
    // The old codes end at 5, the new ones start at 0x80.
    let version = match code {
        1..=5 if version == Version::Mqtt5 && reader.is_at_end() => Version::Mqtt311,
        _ => version,
    };
    let properties = match version {
        Version::Mqtt31 | Version::Mqtt311 => Span::default(),
        Version::Mqtt5 => read_block(reader, Field::Properties, Block::Connack)?,
    };
    reader.finish()?;
    // In 3.1 the byte means nothing.
    let session_present = flags == 1 && version != Version::Mqtt31;
    if flags > 1 && version != Version::Mqtt31 {
        return Err(Wrong::new(Detail::ReservedFlag, start)); // MQTT-3.2.2-1
    }
    if session_present && code != 0 {
        return Err(Wrong::new(Detail::SessionOfRefused, start)); // MQTT-3.2.2-4
    }
    if version == Version::Mqtt5 && matches!(code, 1..0x80) {
        return Err(Wrong::new(Detail::Code { code }, start + 1)); // MQTT5-3.2.2-8
    }
    Ok(Parsed { version, session_present, code, properties })
}

/// The type of CONNACK, and flags that are all 0.
const FIRST_BYTE: u8 = 0x20;
