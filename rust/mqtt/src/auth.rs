//! A step of an authentication, which MQTT 5 has between CONNECT and CONNACK, and later.

use crate::code::{self, Carrier};
use crate::property::{Block, read_block};
use crate::reader::{Reader, Span, Wrong};
use crate::{Detail, Fault, Field, Limits, PacketType, Properties, Property, Sender, Version};

/// A valid AUTH, on top of its own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    raw: &'a [u8],
    code: u8,
    properties: Span,
}

impl<'a> Auth<'a> {
    /// Reads one AUTH, of which all bytes are here and nothing else.
    ///
    /// # Errors
    ///
    /// `malformed-packet` if it is another packet, or breaks a rule.
    pub fn decode(packet: &'a [u8], sender: Sender) -> Result<Self, Fault> {
        let mut reader = Limits::new(sender, Version::Mqtt5, u32::MAX).body(packet, PacketType::Auth)?;
        let (code, properties) = read(&mut reader).map_err(Fault::malformed)?;
        Ok(Self { raw: packet, code, properties })
    }

    /// The code: 0 for success, 0x18 to go on, 0x19 to begin anew.
    #[must_use]
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// The method, which is that of the CONNECT.
    #[must_use]
    pub fn authentication_method(&self) -> Option<&'a str> {
        self.properties().text(Property::AUTHENTICATION_METHOD)
    }

    /// The properties.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties::new(self.properties.bytes(self.raw))
    }
}

pub(crate) fn read(reader: &mut Reader<'_>) -> Result<(u8, Span), Wrong> {
    // The shortest form means success (MQTT 5, section 3.15.2.1).
    if reader.is_at_end() {
        return Ok((0, Span::default()));
    }
    let at = reader.at();
    let code = reader.byte(Field::Code)?;
    if !code::is_allowed(code, Carrier::Auth) {
        return Err(Wrong::new(Detail::Code { code }, at)); // MQTT5-3.15.2-1
    }
    let properties = read_block(reader, Field::Properties, Block::Auth)?;
    reader.finish()?;
    Ok((code, properties))
}
