//! What is wrong with a packet, in words and numbers.

use core::fmt;

use crate::{Field, PacketType, Sender, Start, Version, Versions};

/// What is wrong with a packet. The text is for people, lower case and without a full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// The packet ends inside a field (MQTT-3.1.3-1).
    EndsInside(Field),
    /// A string is not UTF-8 (MQTT-1.5.3-1).
    NotUtf8(Field),
    /// A string holds a NUL (MQTT-1.5.3-2).
    HoldsNul(Field),
    /// A variable byte integer does not end with its fourth byte (MQTT 5, section 1.5.5).
    VarintTooLong(Field),
    /// A variable byte integer takes more bytes than its value needs (MQTT5-1.5.5-1).
    VarintNotMinimal(Field),
    /// Bytes follow the last field.
    BytesBehind {
        /// How many.
        count: usize,
    },

    /// The first packet is no CONNECT (MQTT-3.1.0-1), or no packet at all.
    NotConnect(Start),
    /// The CONNECT is larger than the receiver wants.
    ConnectTooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The largest size in bytes.
        max: u32,
    },
    /// The protocol name is neither `MQTT` nor `MQIsdp` (MQTT-3.1.2-1).
    ProtocolName(Start),
    /// The protocol level is none that is served (MQTT-3.1.2-2).
    ProtocolLevel {
        /// The level.
        level: u8,
        /// The version that has this name and level, if one has.
        version: Option<Version>,
        /// What is served.
        served: Versions,
    },
    /// The reserved flag is set (MQTT-3.1.2-3).
    ReservedFlag,
    /// The QoS of the will is 3 (MQTT-3.1.2-14).
    WillQos,
    /// There are a QoS or RETAIN of a will, and no will (MQTT-3.1.2-11, MQTT-3.1.2-13, MQTT-3.1.2-15).
    WillFlags,
    /// There is a password and no user name (MQTT-3.1.2-22). MQTT 5 allows it.
    PasswordAlone,
    /// The topic of the will is empty (MQTT-4.7.3-1) or holds a wildcard (MQTT-3.3.2-2).
    WillTopic,
    /// The client id is empty, without a clean session (MQTT-3.1.3-8). MQTT 5 allows it.
    EmptyClientId,
    /// The client id is empty. MQTT 3.1 does not know that.
    NoClientId,

    /// It is another packet than the one that is due.
    WrongType {
        /// The type that is due.
        expected: PacketType,
        /// The type of the packet.
        packet_type: PacketType,
    },
    /// A CONNACK refuses and tells of a session (MQTT-3.2.2-4).
    SessionOfRefused,
    /// The packet cannot have this code.
    Code {
        /// The code.
        code: u8,
    },

    /// A packet that ends with its fixed header has more.
    HasBody {
        /// The type.
        packet_type: PacketType,
    },
    /// An acknowledgement does not consist of one packet id that is not 0 (MQTT-2.3.1-1).
    NotOnePacketId {
        /// The type.
        packet_type: PacketType,
    },
    /// The packet id is missing, or is 0 (MQTT-2.3.1-1).
    NoPacketId,
    /// A PUBLISH with QoS 3 (MQTT-3.3.1-4).
    PublishQos,
    /// A PUBLISH with DUP and QoS 0 (MQTT-3.3.1-2).
    PublishDup,
    /// A PUBLISH to a topic with a wildcard (MQTT-3.3.2-2).
    PublishWildcard,
    /// A PUBLISH to a topic that starts with `$` (MQTT-4.7.2-1).
    PublishToBroker,
    /// A topic or a filter is empty (MQTT-4.7.3-1) or holds a NUL (MQTT-4.7.3-2).
    EmptyOrNul(Field),
    /// A SUBSCRIBE or an UNSUBSCRIBE without a filter (MQTT-3.8.3-3, MQTT-3.10.3-2).
    NoFilter,
    /// A SUBSCRIBE whose filter has no QoS of 0 to 2 (MQTT-3-8.3-4), or in MQTT 5 options that are not
    /// defined.
    FilterQos,

    /// A property that MQTT 5 does not define.
    UnknownProperty {
        /// Its identifier.
        id: u8,
    },
    /// A property that belongs elsewhere.
    WrongProperty {
        /// Its identifier.
        id: u8,
        /// Where it stands.
        field: Field,
    },
    /// A property is there twice.
    PropertyTwice {
        /// Its identifier.
        id: u8,
    },
    /// The value of a property is not allowed.
    PropertyValue {
        /// Its identifier.
        id: u8,
    },
    /// There are authentication data and no method (MQTT 5, section 3.1.2.11.10).
    AuthenticationDataAlone,

    /// A second CONNECT (MQTT-3.1.0-2).
    SecondConnect,
    /// A packet of a type that this side does not send, or not in this version.
    NotForSender {
        /// The type, 0 to 15. 0 is no type.
        packet_type: u8,
        /// Who has sent it.
        sender: Sender,
    },
    /// The flags are not those of the type (MQTT-2.2.2-2).
    Flags {
        /// The type.
        packet_type: PacketType,
        /// The low four bits of the first byte.
        flags: u8,
    },
    /// The remaining length does not end with its fourth byte (MQTT 3.1.1, section 2.2.3).
    LengthTooLong,
    /// The remaining length takes more bytes than its value needs (MQTT5-1.5.5-1).
    LengthNotMinimal,
    /// The packet is larger than the receiver wants.
    TooLarge {
        /// The size of the whole packet in bytes.
        size: u32,
        /// The largest size in bytes.
        max: u32,
    },
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::EndsInside(field) => write!(f, "the packet ends inside {field}"),
            Self::NotUtf8(field) => write!(f, "{field} is not UTF-8"),
            Self::HoldsNul(field) => write!(f, "{field} holds a NUL"),
            Self::VarintTooLong(field) => write!(f, "a length in {field} has more than 4 bytes"),
            Self::VarintNotMinimal(field) => write!(f, "a length in {field} has more bytes than it needs"),
            Self::BytesBehind { count } => write!(f, "{count} bytes behind the last field"),

            Self::NotConnect(start) => write!(f, "not a CONNECT but {start}"),
            Self::ConnectTooLarge { size, max } => {
                write!(f, "a CONNECT of {size} bytes, at most {max} are read")
            }
            Self::ProtocolName(name) => {
                write!(f, "the protocol name is b'{}'", name.as_bytes().escape_ascii())
            }
            Self::ProtocolLevel { version: Some(version), served, .. } => write!(f, "{version}; {served}"),
            Self::ProtocolLevel { level, served, .. } => write!(f, "protocol level {level}; {served}"),
            Self::ReservedFlag => f.write_str("the reserved flag is set"),
            Self::WillQos => f.write_str("the will has QoS 3"),
            Self::WillFlags => f.write_str("will flags without a will"),
            Self::PasswordAlone => f.write_str("a password without a user name"),
            Self::WillTopic => f.write_str("the will topic is empty or holds a wildcard"),
            Self::EmptyClientId => f.write_str("an empty client id needs a clean session"),
            Self::NoClientId => f.write_str("an empty client id"),

            Self::WrongType { expected, packet_type } => {
                write!(f, "packet type {} where {expected} is due", packet_type as u8)
            }
            Self::SessionOfRefused => f.write_str("a CONNACK that refuses and has a session"),
            Self::Code { code } => write!(f, "code {code:#04x}, which this packet cannot have"),

            Self::HasBody { packet_type } => write!(f, "packet type {} with a body", packet_type as u8),
            Self::NotOnePacketId { packet_type } => {
                write!(f, "packet type {} without exactly one packet id", packet_type as u8)
            }
            Self::NoPacketId => f.write_str("no packet id, or packet id 0"),
            Self::PublishQos => f.write_str("PUBLISH with QoS 3"),
            Self::PublishDup => f.write_str("PUBLISH with DUP and QoS 0"),
            Self::PublishWildcard => f.write_str("a wildcard in a PUBLISH"),
            Self::PublishToBroker => f.write_str("topics with $ are the broker's own"),
            Self::EmptyOrNul(field) => write!(f, "{field} is empty or holds a NUL"),
            Self::NoFilter => f.write_str("no topic filter"),
            Self::FilterQos => f.write_str("a topic filter without a QoS of 0 to 2"),

            Self::UnknownProperty { id } => write!(f, "property {id:#04x} is not defined"),
            Self::WrongProperty { id, field } => write!(f, "property {id:#04x} does not belong to {field}"),
            Self::PropertyTwice { id } => write!(f, "property {id:#04x} is there twice"),
            Self::PropertyValue { id } => write!(f, "property {id:#04x} has a value that is not allowed"),
            Self::AuthenticationDataAlone => f.write_str("authentication data without a method"),

            Self::SecondConnect => f.write_str("a CONNECT in an open session"),
            Self::NotForSender { packet_type, sender } => {
                write!(f, "packet type {packet_type} is not for {sender} to send")
            }
            Self::Flags { packet_type, flags } => {
                write!(f, "packet type {} with flags {flags:#x}", packet_type as u8)
            }
            Self::LengthTooLong => f.write_str("the remaining length has more than 4 bytes"),
            Self::LengthNotMinimal => f.write_str("the remaining length has more bytes than it needs"),
            Self::TooLarge { size, max } => write!(f, "{size} bytes, at most {max} are read"),
        }
    }
}
