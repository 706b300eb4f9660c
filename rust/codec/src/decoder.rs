//! The way in: [`decode`] for bytes at hand, [`decode_datagram`], and [`Decoder`] for a stream that comes in pieces.
//!
//! Here is decided which version it is (R32). What follows the signature is the business of `v1` and `v2`.

use crate::error::{Error, Reason};
use crate::header::{Header, Parsed, Version};
use crate::options::{Options, Versions};
use crate::{v1, v2};

/// A header, or how much of it is still missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<T> {
    /// All of it is there.
    Complete(T),
    /// It may become one.
    Partial {
        /// The least number of further bytes with which it could be complete; at least 1, and never more than a header
        /// that starts with these bytes still has.
        needed: usize,
    },
}

/// Reads the header at the start of `data`, the first bytes of a stream.
///
/// The header takes `header.raw().len()` bytes; what follows is payload and never influences the result.
///
/// # Errors
///
/// As soon as no continuation can make a valid header of `data` (C13), except that addresses and ports of version 1 are
/// judged when the CRLF is there (R16).
pub fn decode<'a>(data: &'a [u8], options: &Options) -> Result<Status<Header<&'a [u8]>>, Error> {
    Ok(match Progress::Undecided.advance(data, *options)? {
        Step::Complete(parsed, len) => {
            Status::Complete(Header { raw: data.get(..len).unwrap_or(data), parsed })
        }
        Step::Partial(_, needed) => Status::Partial { needed },
    })
}

/// Reads the header at the start of one datagram (R6); the payload follows it.
///
/// # Errors
///
/// As [`decode`]; a datagram that ends inside its header is [`Reason::Truncated`] at its end.
pub fn decode_datagram<'a>(data: &'a [u8], options: &Options) -> Result<Header<&'a [u8]>, Error> {
    match decode(data, options)? {
        Status::Complete(header) => Ok(header),
        Status::Partial { .. } => Err(Error::new(Reason::Truncated, data.len())),
    }
}

/// Reads a header that comes in pieces, each byte looked at once.
///
/// Its buffer holds the bytes of the header only, so at most `max_header_size` of them.
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

#[derive(Debug)]
enum State {
    Reading(Progress),
    Done(Parsed),
    Failed(Error),
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new(options: Options) -> Self {
        Self { options, buffer: Vec::new(), state: State::Reading(Progress::Undecided) }
    }

    /// Takes the next bytes of the stream. With the header complete it returns the part of `data` behind it, which is
    /// all of `data` in later calls.
    ///
    /// # Errors
    ///
    /// As [`decode`]; `offset` counts from the first byte ever fed. Later calls return the same error.
    pub fn feed<'d>(&mut self, data: &'d [u8]) -> Result<Status<&'d [u8]>, Error> {
        let progress = match self.state {
            State::Reading(progress) => progress,
            State::Done(_) => return Ok(Status::Complete(data)),
            State::Failed(error) => return Err(error),
        };
        let before = self.buffer.len();
        let step = if before == 0 {
            progress.advance(data, self.options)
        } else {
            // Whatever is incomplete within the limit fits it wholly, so nothing of `data` is lost by this.
            let room = self.options.max_header_size.get().saturating_sub(before);
            self.buffer.extend_from_slice(data.get(..room).unwrap_or(data));
            progress.advance(&self.buffer, self.options)
        };
        let (state, len, status) = match step {
            Ok(Step::Complete(parsed, len)) => {
                let rest = data.get(len.saturating_sub(before)..).unwrap_or_default();
                (State::Done(parsed), len, Ok(Status::Complete(rest)))
            }
            Ok(Step::Partial(progress, needed)) => {
                (State::Reading(progress), before + data.len(), Ok(Status::Partial { needed }))
            }
            Err(error) => (State::Failed(error), 0, Err(error)),
        };
        self.state = state;
        if before == 0 {
            self.buffer = data.get(..len).unwrap_or(data).to_vec();
        } else {
            self.buffer.truncate(len);
        }
        status
    }

    /// The header, once it is complete.
    #[must_use]
    pub fn header(&self) -> Option<Header<&[u8]>> {
        match self.state {
            State::Done(parsed) => Some(Header { raw: &self.buffer, parsed }),
            State::Reading(_) | State::Failed(_) => None,
        }
    }

    /// The header on its own bytes, once it is complete.
    #[must_use]
    pub fn into_header(self) -> Option<Header> {
        match self.state {
            State::Done(parsed) => Some(Header { raw: self.buffer.into_boxed_slice(), parsed }),
            State::Reading(_) | State::Failed(_) => None,
        }
    }
}

/// How far a header has been read.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Every byte so far fits a signature (R32).
    Undecided,
    /// No line end before `searched`; never looked at again, so linear.
    V1Line { searched: usize },
    /// Fixed part read; it says where the header ends (R28).
    V2Block(v2::Fixed),
}

/// What [`Progress::advance`] found.
enum Step {
    /// A header of so many bytes.
    Complete(Parsed, usize),
    /// At least so many bytes are missing.
    Partial(Progress, usize),
}

impl Progress {
    fn advance(self, data: &[u8], options: Options) -> Result<Step, Error> {
        let progress = match self {
            Self::Undecided => match Self::start(data, options)? {
                Status::Complete(progress) => progress,
                Status::Partial { needed } => return Ok(Step::Partial(self, needed)),
            },
            decided => decided,
        };
        let status = match progress {
            Self::V1Line { searched } => v1::decode(data, searched, options)?,
            Self::V2Block(fixed) => v2::decode(data, fixed, options)?,
            Self::Undecided => Status::Partial { needed: 1 },
        };
        Ok(match (status, progress) {
            (Status::Complete((parsed, len)), _) => Step::Complete(parsed, len),
            // The last byte may be the CR of the CRLF, so it is looked at again.
            (Status::Partial { needed }, Self::V1Line { .. }) => {
                Step::Partial(Self::V1Line { searched: data.len().saturating_sub(1) }, needed)
            }
            (Status::Partial { needed }, progress) => Step::Partial(progress, needed),
        })
    }

    /// Leaves [`Progress::Undecided`] once the version is known and the fixed part of version 2 is read.
    fn start(data: &[u8], options: Options) -> Result<Status<Self>, Error> {
        Ok(match version(data, options.versions)? {
            Status::Complete(Version::V1) => Status::Complete(Self::V1Line { searched: 0 }),
            Status::Complete(Version::V2) => match v2::fixed_part(data, options)? {
                Status::Complete(fixed) => Status::Complete(Self::V2Block(fixed)),
                Status::Partial { needed } => Status::Partial { needed },
            },
            Status::Partial { needed } => Status::Partial { needed },
        })
    }
}

/// Tells the versions apart (R32).
///
/// Bytes that may still become the signature of a version that is not allowed stay open until they are one: only then
/// is it certain that somebody sends the wrong version and not something else altogether.
fn version(data: &[u8], versions: Versions) -> Result<Status<Version>, Error> {
    let matched =
        SIGNATURES.map(|(version, signature)| (version, signature, v1::common_prefix(data, signature)));
    for (version, signature, matched) in matched {
        if matched == signature.len() {
            return if versions.allow(version) {
                Ok(Status::Complete(version))
            } else {
                Err(Error::new(Reason::VersionNotAllowed, 0))
            };
        }
    }
    let longest = matched.iter().map(|&(_, _, matched)| matched).max().unwrap_or_default();
    if longest < data.len() {
        return Err(Error::new(Reason::BadSignature, longest));
    }
    let possible = matched.iter().filter(|&&(version, _, matched)| {
        matched == data.len() && (versions.allow(version) || !data.is_empty())
    });
    let least = possible.map(|&(version, signature, _)| match version {
        _ if !versions.allow(version) => signature.len(),
        Version::V1 => v1::MIN_LEN,
        Version::V2 => v2::FIXED_LEN,
    });
    Ok(Status::Partial { needed: least.min().unwrap_or_default().saturating_sub(data.len()) })
}

/// Each version and how it starts.
const SIGNATURES: [(Version, &[u8]); 2] = [(Version::V1, &v1::SIGNATURE), (Version::V2, &v2::SIGNATURE)];
