//! The properties of MQTT 5: which packets have them, what values they have, and a view of them.

use alloc::vec::Vec;

use crate::reader::{Reader, Span, Wrong};
use crate::topic::has_wildcard;
use crate::writer::{push_binary, push_length};
use crate::{Detail, EncodeError, Field};

/// A property: its identifier and its value (MQTT 5, section 2.2.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property<'a> {
    /// The identifier, for example [`Property::SESSION_EXPIRY_INTERVAL`].
    pub id: u8,
    /// The value, of the kind that belongs to the identifier.
    pub value: Value<'a>,
}

/// The value of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// One byte.
    Byte(u8),
    /// A number of two bytes.
    Two(u16),
    /// A number of four bytes.
    Four(u32),
    /// A number of one to four bytes.
    Varint(u32),
    /// A string.
    Text(&'a str),
    /// Binary data.
    Binary(&'a [u8]),
    /// The name and the value of a user property.
    Pair(&'a str, &'a str),
}

/// Writes the constants of [`Property`] and the table behind them.
macro_rules! properties {
    ($($(#[doc = $doc:literal])+ $name:ident = $id:literal, $kind:ident, [$($owner:ident)+];)+) => {
        impl Property<'_> {
            $($(#[doc = $doc])+ pub const $name: u8 = $id;)+
        }

        /// The kind of a property's value, and in which blocks it may stand.
        const fn row(id: u8) -> Option<(Kind, u16)> {
            match id {
                $($id => Some((Kind::$kind, 0 $(| Block::$owner as u16)+)),)+
                _ => None,
            }
        }
    };
}

properties! {
    /// Whether the message is text.
    PAYLOAD_FORMAT_INDICATOR = 0x01, Switch, [Publish Will];
    /// How long the message is kept, in seconds.
    MESSAGE_EXPIRY_INTERVAL = 0x02, Four, [Publish Will];
    /// What the message is.
    CONTENT_TYPE = 0x03, Text, [Publish Will];
    /// Where an answer goes.
    RESPONSE_TOPIC = 0x08, Topic, [Publish Will];
    /// What the answer must repeat.
    CORRELATION_DATA = 0x09, Binary, [Publish Will];
    /// The number of the subscription.
    SUBSCRIPTION_IDENTIFIER = 0x0b, VarintNotZero, [Subscribe];
    /// How long the session is kept after its connection, in seconds.
    SESSION_EXPIRY_INTERVAL = 0x11, Four, [Connect Connack Disconnect];
    /// The client id that the server has chosen.
    ASSIGNED_CLIENT_IDENTIFIER = 0x12, Text, [Connack];
    /// The keep-alive that the server demands, in seconds.
    SERVER_KEEP_ALIVE = 0x13, Two, [Connack];
    /// The method of an authentication in steps.
    AUTHENTICATION_METHOD = 0x15, Text, [Connect Connack Auth];
    /// The data of a step of an authentication.
    AUTHENTICATION_DATA = 0x16, Binary, [Connect Connack Auth];
    /// Whether the client wants reason strings.
    REQUEST_PROBLEM_INFORMATION = 0x17, Switch, [Connect];
    /// How long the will waits, in seconds.
    WILL_DELAY_INTERVAL = 0x18, Four, [Will];
    /// Whether the client wants response information.
    REQUEST_RESPONSE_INFORMATION = 0x19, Switch, [Connect];
    /// What response topics can be made of.
    RESPONSE_INFORMATION = 0x1a, Text, [Connack];
    /// Another server to use.
    SERVER_REFERENCE = 0x1c, Text, [Connack ServerDisconnect];
    /// The reason in words.
    REASON_STRING = 0x1f, Text, [Connack Ack Disconnect ServerDisconnect Auth];
    /// How many unacknowledged PUBLISH packets the sender takes.
    RECEIVE_MAXIMUM = 0x21, TwoNotZero, [Connect Connack];
    /// How many topic aliases the sender takes.
    TOPIC_ALIAS_MAXIMUM = 0x22, Two, [Connect Connack];
    /// The number that stands for a topic.
    TOPIC_ALIAS = 0x23, TwoNotZero, [Publish];
    /// The highest QoS of the server.
    MAXIMUM_QOS = 0x24, Switch, [Connack];
    /// Whether the server retains messages.
    RETAIN_AVAILABLE = 0x25, Switch, [Connack];
    /// A name and a value that MQTT says nothing about. It may stand there many times.
    USER_PROPERTY = 0x26, Pair,
        [Connect Will Connack Publish Ack Subscribe Unsubscribe Disconnect ServerDisconnect Auth];
    /// The largest packet that the sender takes, in bytes.
    MAXIMUM_PACKET_SIZE = 0x27, FourNotZero, [Connect Connack];
    /// Whether filters may have wildcards.
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28, Switch, [Connack];
    /// Whether subscriptions may have numbers.
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29, Switch, [Connack];
    /// Whether subscriptions may be shared.
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2a, Switch, [Connack];
}

/// The properties of a packet or of a will, in wire order.
#[derive(Clone, Debug, Default)]
pub struct Properties<'a> {
    rest: &'a [u8],
}

impl<'a> Properties<'a> {
    pub(crate) const fn new(block: &'a [u8]) -> Self {
        Self { rest: block }
    }

    /// The value of the first property with this identifier.
    #[must_use]
    pub fn get(&self, id: u8) -> Option<Value<'a>> {
        self.clone().find(|property| property.id == id).map(|property| property.value)
    }

    pub(crate) fn four(&self, id: u8) -> Option<u32> {
        match self.get(id)? {
            Value::Four(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn text(&self, id: u8) -> Option<&'a str> {
        match self.get(id)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        let mut reader = Reader::new(self.rest, 0);
        let (id, value) = read(&mut reader).ok()?;
        let value = value.view(self.rest);
        self.rest = self.rest.get(reader.at()..).unwrap_or_default();
        Some(Property { id, value })
    }
}

/// Where properties stand. A packet of a client and one of a server may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Connect = 0x001,
    Will = 0x002,
    Connack = 0x004,
    /// A PUBLISH of a client.
    Publish = 0x008,
    /// PUBACK, PUBREC, PUBREL and PUBCOMP.
    Ack = 0x010,
    Subscribe = 0x020,
    Unsubscribe = 0x040,
    /// A DISCONNECT of a client.
    Disconnect = 0x080,
    ServerDisconnect = 0x100,
    Auth = 0x200,
}

/// Reads the length of properties and the properties, and checks them. Returns where they stand.
pub(crate) fn read_block(reader: &mut Reader<'_>, field: Field, block: Block) -> Result<Span, Wrong> {
    let len = reader.varint(field)?;
    let start = reader.at();
    let mut properties = reader.block(len as usize, field)?;
    let mut seen = 0_u64;
    let mut method = false;
    let mut data_at = None;
    while !properties.is_at_end() {
        let at = properties.at();
        let (id, _) = read(&mut properties)?;
        if row(id).is_none_or(|(_, blocks)| blocks & block as u16 == 0) {
            return Err(Wrong::new(Detail::WrongProperty { id, field }, at));
        }
        // Identifiers are less than 64.
        if id != Property::USER_PROPERTY && seen & 1 << id != 0 {
            return Err(Wrong::new(Detail::PropertyTwice { id }, at));
        }
        seen |= 1 << id;
        method |= id == Property::AUTHENTICATION_METHOD;
        data_at = if id == Property::AUTHENTICATION_DATA { Some(at) } else { data_at };
    }
    match data_at {
        Some(at) if !method => Err(Wrong::new(Detail::AuthenticationDataAlone, at)),
        _ => Ok(Span::new(start, reader.at())),
    }
}

/// Adds properties, with their length in front.
pub(crate) fn push_properties<'a>(
    packet: &mut Vec<u8>,
    properties: impl Iterator<Item = Property<'a>>,
) -> Result<(), EncodeError> {
    let mut block = Vec::new();
    for Property { id, value } in properties {
        let field = Field::Property(id);
        block.push(id);
        match value {
            Value::Byte(number) => block.push(number),
            Value::Two(number) => block.extend(number.to_be_bytes()),
            Value::Four(number) => block.extend(number.to_be_bytes()),
            Value::Varint(number) => push_length(&mut block, number as usize)?,
            Value::Text(text) => push_binary(&mut block, text.as_bytes(), field)?,
            Value::Binary(data) => push_binary(&mut block, data, field)?,
            Value::Pair(name, value) => {
                push_binary(&mut block, name.as_bytes(), field)?;
                push_binary(&mut block, value.as_bytes(), field)?;
            }
        }
    }
    push_length(packet, block.len())?;
    packet.extend(block);
    Ok(())
}

/// What the value of a property is, and which values are not allowed.
#[derive(Clone, Copy)]
enum Kind {
    /// A byte, 0 or 1.
    Switch,
    Two,
    TwoNotZero,
    Four,
    FourNotZero,
    VarintNotZero,
    Text,
    /// A topic without wildcards.
    Topic,
    Binary,
    Pair,
}

/// A value before anything is borrowed for it.
enum Raw {
    Byte(u8),
    Two(u16),
    Four(u32),
    Varint(u32),
    Text(Span),
    Binary(Span),
    Pair(Span, Span),
}

impl Raw {
    fn view(self, packet: &[u8]) -> Value<'_> {
        match self {
            Self::Byte(number) => Value::Byte(number),
            Self::Two(number) => Value::Two(number),
            Self::Four(number) => Value::Four(number),
            Self::Varint(number) => Value::Varint(number),
            Self::Text(text) => Value::Text(text.text(packet)),
            Self::Binary(data) => Value::Binary(data.bytes(packet)),
            Self::Pair(name, value) => Value::Pair(name.text(packet), value.text(packet)),
        }
    }
}

fn read(reader: &mut Reader<'_>) -> Result<(u8, Raw), Wrong> {
    let at = reader.at();
    // It is a variable byte integer, but none that is defined has more than one byte.
    let id = reader.byte(Field::Properties)?;
    let field = Field::Property(id);
    let Some((kind, _)) = row(id) else { return Err(Wrong::new(Detail::UnknownProperty { id }, at)) };
    let value = match kind {
        Kind::Switch => Raw::Byte(reader.byte(field)?),
        Kind::Two | Kind::TwoNotZero => Raw::Two(reader.two(field)?),
        Kind::Four | Kind::FourNotZero => Raw::Four(reader.four(field)?),
        Kind::VarintNotZero => Raw::Varint(reader.varint(field)?),
        Kind::Text | Kind::Topic => Raw::Text(reader.text(field)?),
        Kind::Binary => Raw::Binary(reader.binary(field)?),
        Kind::Pair => Raw::Pair(reader.text(field)?, reader.text(field)?),
    };
    let is_allowed = match (kind, &value) {
        (Kind::Switch, Raw::Byte(byte)) => *byte <= 1,
        (Kind::TwoNotZero, Raw::Two(number)) => *number != 0,
        (Kind::FourNotZero, Raw::Four(number)) | (Kind::VarintNotZero, Raw::Varint(number)) => *number != 0,
        (Kind::Topic, Raw::Text(topic)) => !has_wildcard(reader.bytes(*topic)),
        _ => true,
    };
    if is_allowed { Ok((id, value)) } else { Err(Wrong::new(Detail::PropertyValue { id }, at)) }
}
