//! Whole packets of a client: whether it may send them. A broker behind this check never sees a packet whose
//! inner lengths contradict the outer one.

use crate::code::{self, Carrier};
use crate::property::{Block, read_block};
use crate::reader::{Reader, Wrong};
use crate::topic::has_wildcard;
use crate::{
    Detail, Fault, Field, FixedHeader, Limits, PacketType, Properties, Property, Reason, Sender, Status,
    Version, auth, disconnect,
};

/// Checks whole packets of a client, after its CONNECT (chapters 2 and 3 of MQTT 3.1.1 and of MQTT 5).
///
/// It knows one packet and not the session, so it does not see that a packet id is in use or that a topic
/// alias is unknown.
///
/// ```
/// use proxyproto_mqtt::{PacketType, Status, Strict, Version};
///
/// let strict = Strict::new(Version::Mqtt311, 65536);
/// let Status::Complete(header) = strict.read(b"\x30\x05\x00\x03a/b\xc0")? else { panic!() };
/// assert_eq!((header.packet_type(), header.size()), (PacketType::Publish, 7));
///
/// let fault = strict.read(b"\x30\x05\x00\x03a/#").unwrap_err();
/// assert_eq!((fault.reason.code(), fault.offset), ("bad-topic", 4));
/// # Ok::<_, proxyproto_mqtt::Fault>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strict {
    limits: Limits,
    version: Version,
}

impl Strict {
    /// Checks for a session of `version`, with packets of at most `max_packet_size` bytes.
    #[must_use]
    pub const fn new(version: Version, max_packet_size: u32) -> Self {
        Self { limits: Limits::new(Sender::Client, version, max_packet_size), version }
    }

    /// Checks the packet at the start of `received`, once it is whole. What follows it is the next one.
    ///
    /// # Errors
    ///
    /// `malformed-packet`, `packet-too-large`, `second-connect` or `bad-topic`. A wrong fixed header is known before
    /// the packet is whole.
    pub fn read(&self, received: &[u8]) -> Result<Status<FixedHeader>, Fault> {
        let Some(header) = self.limits.fixed_header(received)? else {
            return Ok(Status::Partial { needed: 2_usize.saturating_sub(received.len()).max(1) });
        };
        let size = header.size() as usize;
        match received.get(..size) {
            Some(packet) => self.check(header, packet).map(|()| Status::Complete(header)),
            None => Ok(Status::Partial { needed: size - received.len() }),
        }
    }

    fn check(&self, header: FixedHeader, packet: &[u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(packet, usize::from(header.len));
        let packet_type = header.packet_type();
        let checked = match packet_type {
            PacketType::Publish => self.publish(header, &mut reader),
            PacketType::Subscribe | PacketType::Unsubscribe => self.filters(packet_type, &mut reader),
            PacketType::Disconnect => disconnect::read(&mut reader, self.version, Sender::Client).map(|_| ()),
            PacketType::Auth => auth::read(&mut reader).map(|_| ()),
            PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp => {
                self.ack(packet_type, &mut reader)
            }
            // PINGREQ; no other is a client's.
            _ => reader.end_of(packet_type),
        };
        checked.map_err(|wrong| match wrong.detail {
            Detail::PublishWildcard | Detail::PublishToBroker => {
                Fault::new(Reason::BadTopic, wrong.detail, wrong.offset)
            }
            _ => Fault::malformed(wrong),
        })
    }

    fn publish(&self, header: FixedHeader, reader: &mut Reader<'_>) -> Result<(), Wrong> {
        let wrong = |detail, offset| Err(Wrong::new(detail, offset));
        let qos = header.flags() >> 1 & 3;
        if qos == 3 {
            return wrong(Detail::PublishQos, 0); // MQTT-3.3.1-4
        }
        if qos == 0 && header.flags() & DUP != 0 && self.version != Version::Mqtt31 {
            return wrong(Detail::PublishDup, 0); // MQTT-3.3.1-2
        }
        let topic_at = reader.at();
        let topic = text(reader, Field::Topic)?;
        if has_wildcard(topic.as_bytes()) {
            return wrong(Detail::PublishWildcard, topic_at + 2); // MQTT-3.3.2-2
        }
        if topic.starts_with('$') {
            return wrong(Detail::PublishToBroker, topic_at + 2); // MQTT-4.7.2-1
        }
        if qos > 0 {
            packet_id(reader)?;
        }
        let mut alias = false;
        if self.version == Version::Mqtt5 {
            let block = read_block(reader, Field::Properties, Block::Publish)?;
            alias = Properties::new(reader.bytes(block)).get(Property::TOPIC_ALIAS).is_some();
        }
        if topic.is_empty() && !alias {
            return wrong(Detail::EmptyOrNul(Field::Topic), topic_at); // MQTT-4.7.3-1
        }
        Ok(())
    }

    fn filters(&self, packet_type: PacketType, reader: &mut Reader<'_>) -> Result<(), Wrong> {
        packet_id(reader)?;
        let is_subscribe = packet_type == PacketType::Subscribe;
        if self.version == Version::Mqtt5 {
            let block = if is_subscribe { Block::Subscribe } else { Block::Unsubscribe };
            read_block(reader, Field::Properties, block)?;
        }
        if reader.is_at_end() {
            return Err(Wrong::new(Detail::NoFilter, reader.at())); // MQTT-3.8.3-3, MQTT-3.10.3-2
        }
        while !reader.is_at_end() {
            let at = reader.at();
            if text(reader, Field::TopicFilter)?.is_empty() {
                return Err(Wrong::new(Detail::EmptyOrNul(Field::TopicFilter), at)); // MQTT-4.7.3-1
            }
            if is_subscribe {
                let at = reader.at();
                let options =
                    reader.byte(Field::TopicFilter).ok().filter(|options| self.are_options(*options));
                options.ok_or(Wrong::new(Detail::FilterQos, at))?; // MQTT-3-8.3-4, MQTT5-3.8.3-5
            }
        }
        Ok(())
    }

    /// Whether the byte behind a filter says how to subscribe: the QoS, and in MQTT 5 two switches and what
    /// to do with retained messages.
    const fn are_options(&self, options: u8) -> bool {
        match self.version {
            Version::Mqtt31 | Version::Mqtt311 => options <= 2,
            Version::Mqtt5 => options & 0xc0 == 0 && options & 0x30 != 0x30 && options & 3 != 3,
        }
    }

    fn ack(&self, packet_type: PacketType, reader: &mut Reader<'_>) -> Result<(), Wrong> {
        let at = reader.at();
        let is_one_id = packet_id(reader).is_ok() && (reader.is_at_end() || self.version == Version::Mqtt5);
        if !is_one_id {
            return Err(Wrong::new(Detail::NotOnePacketId { packet_type }, at));
        }
        // In MQTT 5 a code and properties may follow (sections 3.4.2 to 3.7.2).
        if !reader.is_at_end() {
            let carrier = match packet_type {
                PacketType::Puback | PacketType::Pubrec => Carrier::Puback,
                _ => Carrier::Pubrel,
            };
            let at = reader.at();
            let code = reader.byte(Field::Code)?;
            if !code::is_allowed(code, carrier) {
                return Err(Wrong::new(Detail::Code { code }, at));
            }
        }
        if !reader.is_at_end() {
            read_block(reader, Field::Properties, Block::Ack)?;
        }
        reader.finish()
    }
}

fn text<'a>(reader: &mut Reader<'a>, field: Field) -> Result<&'a str, Wrong> {
    match reader.text(field) {
        Ok(span) => Ok(reader.text_of(span)),
        Err(Wrong { detail: Detail::HoldsNul(field), offset }) => {
            Err(Wrong::new(Detail::EmptyOrNul(field), offset)) // MQTT-4.7.3-2
        }
        Err(wrong) => Err(wrong),
    }
}

/// Reads a packet id, which is never 0 (MQTT-2.3.1-1).
fn packet_id(reader: &mut Reader<'_>) -> Result<(), Wrong> {
    let at = reader.at();
    match reader.two(Field::Body) {
        Ok(1..) => Ok(()),
        _ => Err(Wrong::new(Detail::NoPacketId, at)),
    }
}

/// The flag of a PUBLISH that is sent again.
const DUP: u8 = 0x08;
