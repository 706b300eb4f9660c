//! A CONNECT that was read: its bytes and what they say. This module holds data and parses nothing.

use alloc::boxed::Box;
use core::fmt;
use core::hash::{Hash, Hasher};

use crate::reader::Span;
use crate::{Properties, Property, Version};

/// A valid CONNECT, on top of its own bytes.
///
/// `B` holds the bytes. [`read`](Connect::read) borrows them; [`to_owned`](Connect::to_owned) boxes them. Two
/// packets are equal when their bytes are.
#[derive(Clone, Copy)]
pub struct Connect<B = Box<[u8]>> {
    pub(crate) raw: B,
    pub(crate) parsed: Parsed,
}

impl<B: AsRef<[u8]>> Connect<B> {
    /// The version of MQTT.
    pub const fn version(&self) -> Version {
        self.parsed.version
    }

    /// The client id. It is empty where the server is to choose one.
    pub fn client_id(&self) -> &str {
        self.parsed.client_id.text(self.raw())
    }

    /// Whether an earlier session of this client id ends. MQTT 3.1.1 calls it a clean session.
    pub const fn clean_start(&self) -> bool {
        self.parsed.flags & CLEAN_START != 0
    }

    /// The keep-alive in seconds. 0 means that the client may be silent for ever.
    pub const fn keep_alive(&self) -> u16 {
        self.parsed.keep_alive
    }

    /// What the server publishes if the client goes without DISCONNECT.
    pub fn will(&self) -> Option<Will<'_>> {
        let will = self.parsed.will?;
        let raw = self.raw();
        Some(Will {
            topic: will.topic.text(raw),
            message: will.message.bytes(raw),
            qos: self.parsed.flags >> 3 & 3,
            retain: self.parsed.flags & WILL_RETAIN != 0,
            properties: Properties::new(will.properties.bytes(raw)),
        })
    }

    /// The user name.
    pub fn username(&self) -> Option<&str> {
        self.parsed.username.map(|span| span.text(self.raw()))
    }

    /// The password.
    pub fn password(&self) -> Option<&[u8]> {
        self.parsed.password.map(|span| span.bytes(self.raw()))
    }

    /// The properties of the packet. Only MQTT 5 has any.
    pub fn properties(&self) -> Properties<'_> {
        Properties::new(self.parsed.properties.bytes(self.raw()))
    }

    /// How long the session is kept after its connection, in seconds; [`u32::MAX`] is for ever. In 3.1 and
    /// 3.1.1 it is 0 or for ever, as [`clean_start`](Self::clean_start) says (MQTT5-3.1.2-23).
    pub fn session_expiry_interval(&self) -> u32 {
        match self.version() {
            Version::Mqtt5 => self.properties().four(Property::SESSION_EXPIRY_INTERVAL).unwrap_or(0),
            _ if self.clean_start() => 0,
            _ => u32::MAX,
        }
    }

    /// The largest packet in bytes that the client takes, if it has said so.
    pub fn maximum_packet_size(&self) -> Option<u32> {
        self.properties().four(Property::MAXIMUM_PACKET_SIZE)
    }

    /// The method of an authentication in steps. With one, AUTH packets may come before the CONNACK.
    pub fn authentication_method(&self) -> Option<&str> {
        self.properties().text(Property::AUTHENTICATION_METHOD)
    }

    /// The bytes of the packet, exactly as received. What follows them in the stream is another packet.
    pub fn raw(&self) -> &[u8] {
        self.raw.as_ref()
    }

    /// The same packet with bytes of its own.
    #[must_use]
    pub fn to_owned(&self) -> Connect {
        Connect { raw: self.raw().into(), parsed: self.parsed }
    }
}

impl<B: AsRef<[u8]>, C: AsRef<[u8]>> PartialEq<Connect<C>> for Connect<B> {
    fn eq(&self, other: &Connect<C>) -> bool {
        self.raw() == other.raw()
    }
}

impl<B: AsRef<[u8]>> Eq for Connect<B> {}

impl<B: AsRef<[u8]>> Hash for Connect<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw().hash(state);
    }
}

/// It does not show the password.
impl<B: AsRef<[u8]>> fmt::Debug for Connect<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version())
            .field("client_id", &self.client_id())
            .field("clean_start", &self.clean_start())
            .field("keep_alive", &self.keep_alive())
            .field("will", &self.will().map(|will| will.topic))
            .field("username", &self.username())
            .field("has_password", &self.password().is_some())
            .field("properties", &self.properties().count())
            .field("len", &self.raw().len())
            .finish()
    }
}

/// What the server publishes if its client goes without DISCONNECT.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Will<'a> {
    /// The topic. It may start with `$`: the bridges of Mosquitto tell of themselves under `$SYS/`.
    pub topic: &'a str,
    /// The message.
    pub message: &'a [u8],
    /// The QoS, 0 to 2.
    pub qos: u8,
    /// Whether the message is retained.
    pub retain: bool,
    /// The properties. Only MQTT 5 has any.
    pub properties: Properties<'a>,
}

/// What the decoder found, so that the accessors need not parse again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parsed {
    pub(crate) version: Version,
    pub(crate) flags: u8,
    pub(crate) keep_alive: u16,
    /// Where the flags stand. The name and the level are in front of them, the keep-alive behind.
    pub(crate) flags_at: usize,
    pub(crate) properties: Span,
    pub(crate) client_id: Span,
    pub(crate) will: Option<WillSpans>,
    pub(crate) username: Option<Span>,
    pub(crate) password: Option<Span>,
}

/// Where the parts of a will stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WillSpans {
    pub(crate) properties: Span,
    pub(crate) topic: Span,
    pub(crate) message: Span,
}

// The flags (MQTT 3.1.1, section 3.1.2.3).
pub(crate) const RESERVED: u8 = 0x01;
pub(crate) const CLEAN_START: u8 = 0x02;
pub(crate) const WILL: u8 = 0x04;
pub(crate) const WILL_QOS: u8 = 0x18;
pub(crate) const WILL_RETAIN: u8 = 0x20;
pub(crate) const PASSWORD: u8 = 0x40;
pub(crate) const USERNAME: u8 = 0x80;
