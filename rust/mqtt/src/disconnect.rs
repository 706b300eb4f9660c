//! The last packet of a session.

use alloc::boxed::Box;

use crate::code::{self, Carrier};
use crate::property::{Block, read_block};
use crate::reader::{Reader, Span, Wrong};
use crate::{Detail, Fault, Field, Limits, PacketType, Properties, Property, Reason, Sender, Version};

/// A valid DISCONNECT, on top of its own bytes. `B` holds them.
///
/// ```
/// use proxyproto_mqtt::{Disconnect, Reason, Sender, Version};
///
/// let taken_over = Disconnect::end(Reason::TakenOver, Version::Mqtt5).unwrap();
/// assert_eq!(taken_over.raw(), b"\xe0\x01\x8e");
/// assert!(Disconnect::end(Reason::TakenOver, Version::Mqtt311).is_none());
///
/// let received = Disconnect::decode(b"\xe0\x01\x04", Version::Mqtt5, Sender::Client)?;
/// assert_eq!(received.code_text(), "disconnect with will message");
/// # Ok::<_, proxyproto_mqtt::Fault>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<B = Box<[u8]>> {
    raw: B,
    code: u8,
    properties: Span,
}

impl<'a> Disconnect<&'a [u8]> {
    /// Reads one DISCONNECT, of which all bytes are here and nothing else.
    ///
    /// # Errors
    ///
    /// `malformed-packet` if it is another packet, or breaks a rule.
    pub fn decode(packet: &'a [u8], version: Version, sender: Sender) -> Result<Self, Fault> {
        let mut reader = Limits::new(sender, version, u32::MAX).body(packet, PacketType::Disconnect)?;
        let (code, properties) = read(&mut reader, version, sender).map_err(Fault::malformed)?;
        Ok(Self { raw: packet, code, properties })
    }
}

impl Disconnect {
    /// The packet by which a server ends a session. `None` where the connection is closed without one.
    #[must_use]
    pub fn end(reason: Reason, version: Version) -> Option<Self> {
        match version {
            Version::Mqtt31 | Version::Mqtt311 => None,
            Version::Mqtt5 => {
                let code = reason.disconnect()?;
                Some(Self { raw: Box::new([0xe0, 1, code]), code, properties: Span::default() })
            }
        }
    }
}

impl<B: AsRef<[u8]>> Disconnect<B> {
    /// The code. It is 0 where the packet has none.
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// What the code means, in the words of MQTT.
    pub const fn code_text(&self) -> &'static str {
        code::text(self.code, Version::Mqtt5)
    }

    /// The properties. Only MQTT 5 has any.
    pub fn properties(&self) -> Properties<'_> {
        Properties::new(self.properties.bytes(self.raw()))
    }

    /// The reason in the sender's words.
    pub fn reason_string(&self) -> Option<&str> {
        self.properties().text(Property::REASON_STRING)
    }

    /// How long the session is to be kept from now on, in seconds, if the client says it anew.
    pub fn session_expiry_interval(&self) -> Option<u32> {
        self.properties().four(Property::SESSION_EXPIRY_INTERVAL)
    }

    /// The bytes of the packet, exactly as received or as they are to be sent.
    pub fn raw(&self) -> &[u8] {
        self.raw.as_ref()
    }
}

pub(crate) fn read(reader: &mut Reader<'_>, version: Version, sender: Sender) -> Result<(u8, Span), Wrong> {
    if version != Version::Mqtt5 || reader.is_at_end() {
        return reader.end_of(PacketType::Disconnect).map(|()| (0, Span::default()));
    }
    let (block, carrier) = match sender {
        Sender::Client => (Block::Disconnect, Carrier::Disconnect),
        Sender::Server => (Block::ServerDisconnect, Carrier::ServerDisconnect),
    };
    let at = reader.at();
    let code = reader.byte(Field::Code)?;
    if !code::is_allowed(code, carrier) {
        return Err(Wrong::new(Detail::Code { code }, at)); // MQTT5-3.14.2-1
    }
    // Behind the code the rest may be left out (MQTT 5, section 3.14.2.2.1).
    let properties =
        if reader.is_at_end() { Span::default() } else { read_block(reader, Field::Properties, block)? };
    reader.finish()?;
    Ok((code, properties))
}
