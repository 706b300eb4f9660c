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
    Ok(match Progress::Undecided.advance(data, options)? {
        Step::Complete(parsed, len) => Status::Complete(Header {
            raw: data.get(..len).unwrap_or(data),
            parsed,
        }),
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
        Self {
            options,
            buffer: Vec::new(),
            state: State::Reading(Progress::Undecided),
        }
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
        let room = self.options.max_header_size.get() - before;
        self.buffer
            .extend_from_slice(data.get(..room).unwrap_or(data));
        match progress.advance(&self.buffer, &self.options) {
            Ok(Step::Complete(parsed, len)) => {
                self.state = State::Done(parsed);
                self.buffer.truncate(len);
                Ok(Status::Complete(
                    data.get(len - before..).unwrap_or_default(),
                ))
            }
            Ok(Step::Partial(progress, needed)) => {
                self.state = State::Reading(progress);
                Ok(Status::Partial { needed })
            }
            Err(error) => {
                self.state = State::Failed(error);
                self.buffer = Vec::new();
                Err(error)
            }
        }
    }

    /// The header, once it is complete.
    #[must_use]
    pub fn header(&self) -> Option<Header<&[u8]>> {
        match self.state {
            State::Done(parsed) => Some(Header {
                raw: &self.buffer,
                parsed,
            }),
            State::Reading(_) | State::Failed(_) => None,
        }
    }

    /// The header on its own bytes, once it is complete.
    #[must_use]
    pub fn into_header(self) -> Option<Header> {
        match self.state {
            State::Done(parsed) => Some(Header {
                raw: self.buffer.into_boxed_slice(),
                parsed,
            }),
            State::Reading(_) | State::Failed(_) => None,
        }
    }
}

/// How far a header has been read.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Every byte so far fits a signature (R32).
    Undecided,
    /// No line end before `searched`; never looked at again.
    V1Line { searched: usize },
    /// The fixed part is read; the header ends at 16 + len (R28).
    V2Block { end: usize },
}

/// What [`Progress::advance`] found.
enum Step {
    /// A header of so many bytes.
    Complete(Parsed, usize),
    /// At least so many bytes are missing.
    Partial(Progress, usize),
}

impl Progress {
    fn advance(self, data: &[u8], options: &Options) -> Result<Step, Error> {
        let _ = (
            data,
            options,
            Versions::Both,
            Version::V1,
            v1::MIN_LEN,
            v2::MIN_LEN,
        );
        Ok(Step::Partial(self, 1))
    }
}
