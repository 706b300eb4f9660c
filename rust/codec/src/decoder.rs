//! The entry points: [`decode`] for bytes at hand, [`decode_datagram`] for a datagram, and [`Decoder`] for a
//! stream that arrives in pieces.
//!
//! This module tells the two versions apart (R32). The modules `v1` and `v2` read what follows the signature.

use alloc::vec::Vec;

use crate::error::{Error, Reason};
use crate::header::{Header, Parsed, Version};
use crate::options::{Options, Versions};
use crate::{v1, v2};

/// A header, or how much of it is still missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<T> {
    /// The header is complete.
    Complete(T),
    /// The bytes so far may become a header.
    Partial {
        /// The least number of further bytes that can complete the header. It is at least 1, and never more
        /// than the rest of any header that starts with these bytes.
        needed: usize,
    },
}

/// Reads the header at the start of `data`, the first bytes of a stream.
///
/// The header takes `header.raw().len()` bytes. The bytes behind it are payload and never influence the
/// result.
///
/// # Errors
///
/// Returns an error as soon as no continuation can make `data` a valid header (C13). There is one exception:
/// the addresses and ports of version 1 are judged when the CRLF is there (R16).
#[inline]
pub fn decode<'a>(data: &'a [u8], options: &Options) -> Result<Status<Header<&'a [u8]>>, Error> {
    match signature(data) {
        Some(version) if !options.versions.allow(version) => Err(Error::new(Reason::VersionNotAllowed, 0)),
        Some(Version::V1) => v1::decode(data, 0, *options),
        Some(Version::V2) => v2::decode(data, *options),
        None => Ok(Status::Partial { needed: undecided(data, options.versions)? }),
    }
}

/// Reads the header at the start of one datagram (R6). The payload follows the header.
///
/// # Errors
///
/// Those of [`decode`]. A datagram that ends inside its header is a [`Reason::Truncated`] at its end.
pub fn decode_datagram<'a>(data: &'a [u8], options: &Options) -> Result<Header<&'a [u8]>, Error> {
    match decode(data, options)? {
        Status::Complete(header) => Ok(header),
        Status::Partial { .. } => Err(Error::new(Reason::Truncated, data.len())),
    }
}

/// Reads a header that arrives in pieces. It looks at each byte once.
///
/// Its buffer holds bytes of the header only, at most `max_header_size` of them.
///
/// ```
/// use proxyproto_codec::{Decoder, Options, Status};
///
/// let mut decoder = Decoder::new(Options::default());
/// assert_eq!(decoder.feed(b"PROXY UNK")?, Status::Partial { needed: 6 });
/// assert_eq!(decoder.feed(b"NOWN\r\npayload")?, Status::Complete(&b"payload"[..]));
/// assert_eq!(decoder.header().unwrap().raw(), b"PROXY UNKNOWN\r\n");
/// # Ok::<_, proxyproto_codec::Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    options: Options,
    buffer: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Every byte so far fits a signature (R32).
    Undecided,
    /// No line ends before `searched`. These bytes are not searched again, so the time is linear.
    V1Line { searched: usize },
    /// The fixed part is read. The header ends at 16 + len (R28).
    V2Block { end: usize },
    /// The whole header is in the buffer.
    Done(Parsed),
    /// The bytes cannot become a header.
    Failed(Error),
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options, buffer: Vec::new(), state: State::Undecided }
    }

    /// Takes the next bytes of the stream. When the header is complete, it returns the part of `data` behind
    /// the header. Later calls return all of `data`.
    ///
    /// # Errors
    ///
    /// Those of [`decode`]. `offset` counts from the first byte ever fed. Later calls return the same error.
    pub fn feed<'d>(&mut self, data: &'d [u8]) -> Result<Status<&'d [u8]>, Error> {
        match self.state {
            State::Done(_) => return Ok(Status::Complete(data)),
            State::Failed(error) => return Err(error),
            State::Undecided | State::V1Line { .. } | State::V2Block { .. } => {}
        }
        let before = self.buffer.len();
        let seen = if before == 0 {
            // Most headers arrive in one piece. Then only the header itself is copied.
            data
        } else {
            // A header within the limit fits into the room that is left, so none of its bytes are cut off.
            let room = self.options.max_header_size.get().saturating_sub(before);
            self.buffer.extend_from_slice(data.get(..room).unwrap_or(data));
            &self.buffer
        };
        let (state, kept, result) = match self.state.advance(seen, self.options) {
            Ok(Status::Complete(header)) => {
                let len = header.raw.len();
                let rest = data.get(len.saturating_sub(before)..).unwrap_or_default();
                (State::Done(header.parsed), len, Ok(Status::Complete(rest)))
            }
            Ok(Status::Partial { needed }) => {
                (State::after(seen, needed), seen.len(), Ok(Status::Partial { needed }))
            }
            Err(error) => (State::Failed(error), 0, Err(error)),
        };
        if before == 0 {
            self.buffer = data.get(..kept).unwrap_or(data).to_vec();
        } else {
            self.buffer.truncate(kept);
        }
        self.state = state;
        result
    }

    /// The header, once it is complete.
    #[must_use]
    pub fn header(&self) -> Option<Header<&[u8]>> {
        match self.state {
            State::Done(parsed) => Some(Header { raw: &self.buffer, parsed }),
            _ => None,
        }
    }

    /// The header, once it is complete, in storage of its own.
    #[must_use]
    pub fn into_header(self) -> Option<Header> {
        match self.state {
            State::Done(parsed) => Some(Header { raw: self.buffer.into_boxed_slice(), parsed }),
            _ => None,
        }
    }
}

impl State {
    /// Continues where the last call, with a shorter `buffer`, stopped.
    fn advance(self, buffer: &[u8], options: Options) -> Result<Status<Header<&[u8]>>, Error> {
        match self {
            Self::V1Line { searched } => v1::decode(buffer, searched, options),
            Self::V2Block { end } if buffer.len() < end => Ok(Status::Partial { needed: end - buffer.len() }),
            _ => decode(buffer, &options),
        }
    }

    /// The state after `buffer`, which does not hold the whole header yet.
    fn after(buffer: &[u8], needed: usize) -> Self {
        match signature(buffer) {
            // The last byte may be the CR of the CRLF.
            Some(Version::V1) => Self::V1Line { searched: buffer.len() - 1 },
            Some(Version::V2) if buffer.len() >= v2::FIXED_LEN => {
                Self::V2Block { end: buffer.len() + needed }
            }
            _ => Self::Undecided,
        }
    }
}

/// The version, once its whole signature is there (R32).
#[inline]
fn signature(data: &[u8]) -> Option<Version> {
    if data.starts_with(&v2::SIGNATURE) {
        Some(Version::V2)
    } else if data.starts_with(&v1::SIGNATURE) {
        Some(Version::V1)
    } else {
        None
    }
}

/// How many more bytes a part of a signature needs.
///
/// Bytes that may become the signature of a version that is not allowed are no error yet. Only the whole
/// signature shows that the sender uses the wrong version, and not another protocol.
#[cold]
fn undecided(data: &[u8], versions: Versions) -> Result<usize, Error> {
    let possible = SIGNATURES.iter().filter(|&&(version, signature)| {
        signature.starts_with(data) && (versions.allow(version) || !data.is_empty())
    });
    let least = possible.map(|&(version, signature)| match version {
        _ if !versions.allow(version) => signature.len(),
        Version::V1 => v1::MIN_LEN,
        Version::V2 => v2::FIXED_LEN,
    });
    if let Some(least) = least.min() {
        return Ok(least.saturating_sub(data.len()));
    }
    let matched = SIGNATURES.map(|(_, signature)| common_prefix(data, signature));
    Err(Error::new(Reason::BadSignature, matched.into_iter().max().unwrap_or_default()))
}

/// How many bytes `data` and `pattern` have in common at their start.
pub(crate) fn common_prefix(data: &[u8], pattern: &[u8]) -> usize {
    data.iter().zip(pattern).take_while(|(a, b)| a == b).count()
}

/// Each version and how it starts.
const SIGNATURES: [(Version, &[u8]); 2] = [(Version::V1, &v1::SIGNATURE), (Version::V2, &v2::SIGNATURE)];
