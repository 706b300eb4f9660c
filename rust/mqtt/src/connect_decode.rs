//! Reads a CONNECT strictly (section 3.1 of MQTT 3.1.1 and of MQTT 5).

use alloc::borrow::ToOwned;
use alloc::string::String;

use crate::connect::{
    CLEAN_START, PASSWORD, Parsed, RESERVED, USERNAME, WILL, WILL_QOS, WILL_RETAIN, WillSpans,
};
use crate::fixed_header::Length;
use crate::property::{Block, read_block};
use crate::reader::{Reader, Span, Wrong};
use crate::topic::has_wildcard;
use crate::{Connect, Detail, Field, Reason, Refusal, Start, Status, Version, Versions};

impl<'a> Connect<&'a [u8]> {
    /// Reads the CONNECT at the start of `received`, the first bytes of a stream. It asks for at
    /// most `max_size` bytes of the packet.
    ///
    /// The packet takes `connect.raw().len()` bytes.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] as soon as it is known what is wrong:
    ///
    /// - `malformed-connect`: the bytes are another protocol's, another packet, or break a rule of the
    ///   client's version;
    /// - `packet-too-large`: the CONNECT has more than `max_size` bytes. The bytes that say its version are
    ///   waited for. Where `versions` has no MQTT 5, nobody could be told, and it is `malformed-connect` at once;
    /// - `protocol-version`: the version is not among `versions`, whatever the rest of the packet is;
    /// - `identifier-rejected`: the client id is empty, and the version does not allow it.
    pub fn read(received: &'a [u8], versions: Versions, max_size: u32) -> Result<Status<Self>, Refusal> {
        let Some((&first, rest)) = received.split_first() else { return Ok(Status::Partial { needed: 2 }) };
        if first != FIRST_BYTE {
            let start = Start::of(received);
            return match start.undecided() {
                0 => Err(malformed(Wrong::new(Detail::NotConnect(start), 0), None)),
                needed => Ok(Status::Partial { needed }),
            };
        }
        let length = match Length::read(rest, false) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(Status::Partial { needed: 1 }),
            Err(detail) => return Err(malformed(Wrong::new(detail, 1), None)),
        };
        let body_at = 1 + usize::from(length.bytes);
        let size = 1 + u32::from(length.bytes) + length.value;
        if size > max_size {
            if !versions.contains(Version::Mqtt5) {
                // No version has an answer to it, so nobody needs to know which it is.
                return Err(malformed(Wrong::new(Detail::ConnectTooLarge { size, max: max_size }, 1), None));
            }
            return match peek_version(received.get(body_at..).unwrap_or_default(), length.value) {
                Status::Partial { needed } => Ok(Status::Partial { needed }),
                Status::Complete(version) => {
                    let wrong = Wrong::new(Detail::ConnectTooLarge { size, max: max_size }, 1);
                    Err(Refusal::new(Reason::PacketTooLarge, wrong, version))
                }
            };
        }
        match received.get(..size as usize) {
            Some(packet) => decode(packet, body_at, versions).map(Status::Complete),
            None => Ok(Status::Partial { needed: size as usize - received.len() }),
        }
    }

    /// Reads one CONNECT, of which all bytes are here and nothing else.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read). A packet that is not whole is a `malformed-connect` too, and so is one
    /// with something behind it.
    pub fn decode(packet: &'a [u8], versions: Versions) -> Result<Self, Refusal> {
        match Self::read(packet, versions, u32::MAX)? {
            Status::Complete(connect) => {
                let reader = Reader::new(packet, connect.raw.len());
                reader.finish().map_err(|wrong| malformed(wrong, Some(connect.version())))?;
                Ok(connect)
            }
            Status::Partial { .. } => {
                Err(malformed(Wrong::new(Detail::EndsInside(Field::Body), packet.len()), None))
            }
        }
    }
}

fn decode(packet: &[u8], body_at: usize, versions: Versions) -> Result<Connect<&[u8]>, Refusal> {
    let mut reader = Reader::new(packet, body_at);
    let version = read_version(&mut reader, versions)?;
    if version == Version::Mqtt5 {
        let length = Length::read(packet.get(1..).unwrap_or_default(), true);
        length.map_err(|detail| malformed(Wrong::new(detail, 1), Some(version)))?;
    }
    let parsed = read_rest(&mut reader, version).map_err(|wrong| malformed(wrong, Some(version)))?;
    let refused = match version {
        _ if !parsed.client_id.is_empty() => None,
        Version::Mqtt31 => Some(Detail::NoClientId),
        Version::Mqtt311 if parsed.flags & CLEAN_START == 0 => Some(Detail::EmptyClientId),
        Version::Mqtt311 | Version::Mqtt5 => None,
    };
    match refused {
        Some(detail) => {
            let wrong = Wrong::new(detail, parsed.client_id.start());
            Err(Refusal::new(Reason::IdentifierRejected, wrong, Some(version)))
        }
        None => Ok(Connect { raw: packet, parsed }),
    }
}

/// Reads the protocol's name and level, which say the version.
fn read_version(reader: &mut Reader<'_>, versions: Versions) -> Result<Version, Refusal> {
    let (name, level_at, level) = name_and_level(reader).map_err(|wrong| malformed(wrong, None))?;
    let Some((_, named)) = NAMES.iter().find(|(known, _)| *known == name) else {
        let detail = Detail::ProtocolName(Start::of(name));
        return Err(malformed(Wrong::new(detail, level_at - name.len()), None));
    };
    let version = named.iter().copied().find(|version| version.level() == level);
    match version {
        Some(version) if versions.contains(version) => Ok(version),
        _ => {
            let wrong = Wrong::new(Detail::ProtocolLevel { level, version, served: versions }, level_at);
            let mut refusal = Refusal::new(Reason::ProtocolVersion, wrong, version);
            refusal.client_id = foreign_id(*reader, level).unwrap_or_default();
            Err(refusal)
        }
    }
}

fn name_and_level<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], usize, u8), Wrong> {
    let name = reader.binary(Field::ProtocolName)?;
    let level_at = reader.at();
    let level = reader.byte(Field::ProtocolLevel)?;
    Ok((reader.bytes(name), level_at, level))
}

/// The client id of a version that is not served, if it stands where it does in the versions that we know.
fn foreign_id(mut reader: Reader<'_>, level: u8) -> Result<String, Wrong> {
    reader.byte(Field::Flags)?;
    reader.two(Field::KeepAlive)?;
    if level & !MOSQUITTO_BRIDGE == Version::Mqtt5.level() {
        let len = reader.varint(Field::Properties)?;
        reader.block(len as usize, Field::Properties)?;
    }
    let client_id = reader.text(Field::ClientId)?;
    Ok(reader.text_of(client_id).to_owned())
}

/// Reads what follows the protocol level.
fn read_rest(reader: &mut Reader<'_>, version: Version) -> Result<Parsed, Wrong> {
    let flags_at = reader.at();
    let flags = reader.byte(Field::Flags)?;
    let keep_alive = reader.two(Field::KeepAlive)?;
    check_flags(flags, version).map_err(|detail| Wrong::new(detail, flags_at))?;
    let properties = match version {
        Version::Mqtt5 => read_block(reader, Field::Properties, Block::Connect)?,
        Version::Mqtt31 | Version::Mqtt311 => Span::default(),
    };
    let client_id = reader.text(Field::ClientId)?;
    let will = if flags & WILL == 0 { None } else { Some(read_will(reader, version)?) };
    // In 3.1 the end of the packet counts more than these two flags (section 3.1 of MQTT 3.1).
    let is_there = |reader: &Reader<'_>| !(version == Version::Mqtt31 && reader.is_at_end());
    let username = (flags & USERNAME != 0 && is_there(reader)).then(|| reader.text(Field::Username));
    let username = username.transpose()?;
    let password = (flags & PASSWORD != 0 && is_there(reader)).then(|| reader.binary(Field::Password));
    let password = password.transpose()?;
    reader.finish()?;
    Ok(Parsed { version, flags, keep_alive, flags_at, properties, client_id, will, username, password })
}

/// Whether the flags go together. MQTT 3.1 disregards those of a will without a will, and the reserved one.
fn check_flags(flags: u8, version: Version) -> Result<(), Detail> {
    let is_31 = version == Version::Mqtt31;
    if flags & RESERVED != 0 && !is_31 {
        return Err(Detail::ReservedFlag);
    }
    if flags & WILL != 0 && flags & WILL_QOS == WILL_QOS {
        return Err(Detail::WillQos);
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 && !is_31 {
        return Err(Detail::WillFlags);
    }
    if flags & (PASSWORD | USERNAME) == PASSWORD && version != Version::Mqtt5 {
        return Err(Detail::PasswordAlone);
    }
    Ok(())
}

fn read_will(reader: &mut Reader<'_>, version: Version) -> Result<WillSpans, Wrong> {
    let properties = match version {
        Version::Mqtt5 => read_block(reader, Field::WillProperties, Block::Will)?,
        Version::Mqtt31 | Version::Mqtt311 => Span::default(),
    };
    let topic = reader.text(Field::WillTopic)?;
    let message = reader.binary(Field::WillMessage)?;
    if topic.is_empty() || has_wildcard(reader.bytes(topic)) {
        return Err(Wrong::new(Detail::WillTopic, topic.start()));
    }
    Ok(WillSpans { properties, topic, message })
}

/// The version that the start of a body of `len` bytes says; `None` for what is none of MQTT's.
fn peek_version(body: &[u8], len: u32) -> Status<Option<Version>> {
    let mut reader = Reader::new(body, 0);
    match read_version(&mut reader, Versions::ALL) {
        Ok(version) => Status::Complete(Some(version)),
        // The longer name and its length have 8 bytes.
        Err(Refusal { detail: Detail::EndsInside(_), .. })
            if body.len() <= 8 && body.len() < len as usize =>
        {
            Status::Partial { needed: 1 }
        }
        Err(_) => Status::Complete(None),
    }
}

fn malformed(wrong: Wrong, version: Option<Version>) -> Refusal {
    Refusal::new(Reason::MalformedConnect, wrong, version)
}

/// The type of CONNECT, and flags that are all 0 (MQTT-2.2.2-2).
pub(crate) const FIRST_BYTE: u8 = 0x10;

/// The bridges of Mosquitto set this bit of the level.
const MOSQUITTO_BRIDGE: u8 = 0x80;

/// The protocol names, and the versions that go by them.
const NAMES: [(&[u8], &[Version]); 2] =
    [(b"MQTT", &[Version::Mqtt311, Version::Mqtt5]), (b"MQIsdp", &[Version::Mqtt31])];
