//! The names of a packet's parts, for error texts.

use core::fmt;

/// A part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The fixed header.
    FixedHeader,
    /// What follows the fixed header.
    Body,
    /// The name of the protocol, `MQTT` or `MQIsdp`.
    ProtocolName,
    /// The level of the protocol.
    ProtocolLevel,
    /// The flags.
    Flags,
    /// The keep-alive.
    KeepAlive,
    /// The code that a packet answers with.
    Code,
    /// The properties of the packet.
    Properties,
    /// The client id.
    ClientId,
    /// The properties of the will.
    WillProperties,
    /// The topic of the will.
    WillTopic,
    /// The message of the will.
    WillMessage,
    /// The user name.
    Username,
    /// The password.
    Password,
    /// The topic of a PUBLISH.
    Topic,
    /// A filter of a SUBSCRIBE or of an UNSUBSCRIBE.
    TopicFilter,
    /// One property, by its identifier.
    Property(u8),
}

/// The name with its article, for sentences such as `the packet ends inside the client id`.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::FixedHeader => "the fixed header",
            Self::Body => "the body",
            Self::ProtocolName => "the protocol name",
            Self::ProtocolLevel => "the protocol level",
            Self::Flags => "the flags",
            Self::KeepAlive => "the keep-alive",
            Self::Code => "the code",
            Self::Properties => "the properties",
            Self::ClientId => "the client id",
            Self::WillProperties => "the will properties",
            Self::WillTopic => "the will topic",
            Self::WillMessage => "the will message",
            Self::Username => "the user name",
            Self::Password => "the password",
            Self::Topic => "the topic",
            Self::TopicFilter => "the topic filter",
            Self::Property(id) => return write!(f, "property {id:#04x}"),
        })
    }
}
