//! The packets in a stream that arrives in pieces: [`Framing`] reads fixed headers and skips what is between
//! them.

use crate::{Fault, FixedHeader, Limits};

/// Finds where the packets of one side begin and end, in pieces of any size.
///
/// It copies nothing but the bytes of a fixed header whose rest is still to come, so a relay forwards each
/// piece as it is.
///
/// ```
/// use proxyproto_mqtt::{Framing, Limits, PacketType, Sender, Version};
///
/// let mut framing = Framing::new(Limits::new(Sender::Client, Version::Mqtt5, 65536));
/// let mut seen = Vec::new();
/// framing.scan(b"\xc0\x00\xe0", |packet| seen.push(packet.packet_type()))?;
/// assert_eq!((framing.boundary(), framing.needed()), (2, 1));
/// framing.scan(b"\x00", |packet| seen.push(packet.packet_type()))?;
/// assert_eq!(seen, [PacketType::Pingreq, PacketType::Disconnect]);
/// # Ok::<_, proxyproto_mqtt::Fault>(())
/// ```
#[derive(Clone, Debug)]
pub struct Framing {
    limits: Limits,
    state: State,
    boundary: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between two packets.
    Boundary,
    /// Inside a fixed header, of which `have` bytes are here.
    Header { bytes: [u8; MAX_FIXED_HEADER], have: u8 },
    /// Inside a packet, of which `missing` bytes are still to come.
    Body { header: FixedHeader, missing: u32 },
    /// Behind a wrong byte.
    Broken(Fault),
}

impl Framing {
    /// A scan that starts behind the CONNECT.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, state: State::Boundary, boundary: 0 }
    }

    /// Reads the next piece of the stream. `ended` gets the fixed header of each packet that ends in it.
    ///
    /// # Errors
    ///
    /// The first [`Fault`] of the stream, as soon as its byte is there; from then on every call returns it.
    /// The packets before it have been given to `ended`, and end at [`boundary`](Self::boundary).
    #[inline]
    pub fn scan(&mut self, data: &[u8], mut ended: impl FnMut(FixedHeader)) -> Result<(), Fault> {
        self.boundary = 0;
        let mut rest = data;
        if !self.at_boundary() {
            let Some((header, next)) = self.resume(data)? else { return Ok(()) };
            ended(header);
            rest = next;
        }
        let limits = self.limits;
        self.state = loop {
            while let Some((header, next)) = limits.short_packet(rest) {
                ended(header);
                rest = next;
            }
            if rest.is_empty() {
                break State::Boundary;
            }
            let header = match self.limits.fixed_header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => break State::header(rest),
                Err(fault) => break State::Broken(fault),
            };
            let Some(next) = rest.get(header.size() as usize..) else {
                break State::body(header, rest.len());
            };
            ended(header);
            rest = next;
        };
        self.boundary = data.len() - rest.len();
        match self.state {
            State::Broken(fault) => Err(fault),
            _ => Ok(()),
        }
    }

    /// Where the last packet ends that has ended in the last piece: how many bytes of that piece belong to
    /// whole packets. It is 0 if none has ended there.
    #[must_use]
    pub const fn boundary(&self) -> usize {
        self.boundary
    }

    /// Whether the next byte begins a packet.
    #[inline]
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    /// The least number of further bytes that can complete the packet, and never more than the packet has. It
    /// is 0 between two packets, and behind a fault.
    ///
    /// Who must end the stream between two packets scans no more than this many bytes at a time.
    #[must_use]
    pub const fn needed(&self) -> u32 {
        match self.state {
            State::Boundary | State::Broken(_) => 0,
            State::Header { .. } => 1,
            State::Body { missing, .. } => missing,
        }
    }

    /// The packet that has begun, once its fixed header is whole.
    #[must_use]
    pub const fn begun(&self) -> Option<FixedHeader> {
        match self.state {
            State::Body { header, .. } => Some(header),
            _ => None,
        }
    }

    /// Goes on with the packet that has begun. Returns its fixed header and what follows it, or `None` if
    /// `data` does not end it.
    fn resume<'a>(&mut self, data: &'a [u8]) -> Result<Option<(FixedHeader, &'a [u8])>, Fault> {
        let mut rest = data;
        while let State::Header { mut bytes, have } = self.state {
            let Some((&byte, next)) = rest.split_first() else { return Ok(None) };
            rest = next;
            let whole = usize::from(have) + 1;
            if let Some(place) = bytes.get_mut(usize::from(have)) {
                *place = byte;
            }
            self.state = match self.limits.fixed_header(bytes.get(..whole).unwrap_or(&bytes)) {
                Ok(Some(header)) => State::Body { header, missing: header.remaining() },
                Ok(None) => State::Header { bytes, have: have + 1 },
                Err(fault) => State::Broken(fault),
            };
        }
        match self.state {
            State::Broken(fault) => Err(fault),
            State::Body { header, missing } => {
                if let Some(next) = rest.get(missing as usize..) {
                    self.state = State::Boundary;
                    return Ok(Some((header, next)));
                }
                self.state = State::body(header, header.size() as usize - missing as usize + rest.len());
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}

impl State {
    /// Some bytes of a fixed header are here.
    fn header(data: &[u8]) -> Self {
        let mut bytes = [0; MAX_FIXED_HEADER];
        let mut have = 0;
        for (place, byte) in bytes.iter_mut().zip(data) {
            *place = *byte;
            have += 1;
        }
        Self::Header { bytes, have }
    }

    /// Of a packet `have` bytes are here, its fixed header among them.
    fn body(header: FixedHeader, have: usize) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a packet that is not whole has less bytes than its size"
        )]
        Self::Body { header, missing: header.size() - have as u32 }
    }
}

/// A type and flags, and a remaining length of four bytes.
const MAX_FIXED_HEADER: usize = 5;
