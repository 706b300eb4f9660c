//! The records of TLS, in and out of rustls.
//!
//! This uses the unbuffered connections of rustls. The buffered ones keep 4 KiB or more for each idle session.

use std::mem;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error};

use crate::channel::Flow;

/// One of rustls' connections.
pub(super) trait Side: Send {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

/// A TLS connection, and the incomplete input that waits for its rest.
pub(super) struct Records<S> {
    side: S,
    /// The beginning of an incomplete record, or of a handshake message that spans several records. rustls lets it grow to
    /// 64 KiB at most. It holds no memory while it is empty.
    rest: Vec<u8>,
    /// The connection has ended. It takes and gives nothing more.
    is_over: bool,
}

impl<S: Side> Records<S> {
    pub(super) fn new(side: S) -> Self {
        Self { side, rest: Vec::new(), is_over: false }
    }

    pub(super) fn state(&self) -> &CommonState {
        self.side.state()
    }

    /// Takes all of `received`. After an error, `answer` contains the alert.
    pub(super) fn decode(
        &mut self,
        received: &mut [u8],
        plain: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, Error> {
        if self.is_over {
            return Ok(Flow::Ended);
        }
        if self.rest.is_empty() {
            return self.take(received, plain, answer);
        }
        let mut all = mem::take(&mut self.rest);
        all.extend_from_slice(received);
        self.take(&mut all, plain, answer)
    }

    fn take(&mut self, records: &mut [u8], plain: &mut Vec<u8>, answer: &mut Vec<u8>) -> Result<Flow, Error> {
        let mut rest = records;
        let mut flow = Flow::Open;
        loop {
            let UnbufferedStatus { mut discard, state } = self.side.process(rest);
            let wants_more = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(answer, |buffer| data.encode(buffer))?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    flow = Flow::Ended;
                    false
                }
                // BlockedHandshake and WriteTraffic: all that is whole has been taken.
                Ok(_) => true,
                Err(error) => {
                    self.is_over = true;
                    self.append_alert(answer);
                    return Err(error);
                }
            };
            rest = rest.get_mut(discard..).unwrap_or_default();
            if wants_more {
                // Behind the goodbye nothing counts.
                if flow == Flow::Open {
                    self.rest = rest.to_vec();
                }
                return Ok(flow);
            }
        }
    }

    /// After an error the alert waits. rustls must not be asked for more than that: it would read on.
    fn append_alert(&mut self, answer: &mut Vec<u8>) {
        while self.side.state().wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.side.process(&mut []).state else {
                return;
            };
            if append(answer, |buffer| data.encode(buffer)).is_err() {
                return;
            }
        }
    }

    /// Appends what the connection itself begins with, or what carries `plain`, once its handshake is over.
    pub(super) fn encode(&mut self, plain: &[u8], wire: &mut Vec<u8>) -> Result<(), Error> {
        while !self.is_over {
            match self.side.process(&mut self.rest).state? {
                ConnectionState::EncodeTlsData(mut data) => append(wire, |buffer| data.encode(buffer))?,
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::WriteTraffic(mut traffic) if !plain.is_empty() => {
                    // As much as it takes for records of 16 KiB.
                    let room = plain.len() + (plain.len() / MAX_FRAGMENT + 1) * MAX_OVERHEAD;
                    return append_in(wire, room, |buffer| traffic.encrypt(plain, buffer));
                }
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Appends the goodbye, where there is somebody to say it to.
    pub(super) fn close(&mut self, wire: &mut Vec<u8>) {
        if self.is_over || self.state().is_handshaking() || self.encode(&[], wire).is_err() {
            return;
        }
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.side.process(&mut self.rest).state {
            // Without it the peer sees the end of the connection alone.
            let _ = append_in(wire, MAX_OVERHEAD, |buffer| traffic.queue_close_notify(buffer));
        }
        self.is_over = true;
    }
}

/// Appends what `write` writes.
fn append<E: TooSmall>(
    buffer: &mut Vec<u8>,
    write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Error> {
    append_in(buffer, 0, write)
}

/// As [`append`], with the room that it probably takes.
fn append_in<E: TooSmall>(
    buffer: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Error> {
    let start = buffer.len();
    loop {
        buffer.resize(start + room, 0);
        match write(buffer.get_mut(start..).unwrap_or_default()) {
            Ok(count) => {
                buffer.truncate(start + count);
                return Ok(());
            }
            Err(error) => {
                buffer.truncate(start);
                // It never wants less than it had.
                room = error.required().filter(|required| *required > room).ok_or(Error::EncryptError)?;
            }
        }
    }
}

/// What rustls says of a buffer.
trait TooSmall {
    /// How large it must be, if that is what is wrong.
    fn required(&self) -> Option<usize>;
}

impl TooSmall for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(needed) => Some(needed.required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl TooSmall for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(needed) => Some(needed.required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// The largest plain text of one record.
const MAX_FRAGMENT: usize = 16 * 1024;
/// Header, explicit nonce, content type and tag of a record.
const MAX_OVERHEAD: usize = 5 + 8 + 1 + 16;
