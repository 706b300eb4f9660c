//! The bytes of MQTT on a socket: read through the channel where there is one, and written as far as the peer takes them.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::time::timeout;

use super::{Scratch, Socket, with_scratch};
use crate::channel::{Channel, ChannelFault, Flow, Stage};

/// So many bytes of a channel's own answers may wait for a peer that does not read. With more, we read no more from it.
const MAX_WAITING_ANSWERS: usize = 64 * 1024;

/// A socket with its channel, and the bytes that the peer has not taken yet.
pub(crate) struct Wire {
    socket: Socket,
    channel: Option<Box<dyn Channel>>,
    /// Bytes that the peer has not taken. It holds no memory while it is empty.
    unsent: Vec<u8>,
    /// The number of bytes of `unsent` that have been sent since.
    gone: usize,
    reading: Reading,
}

/// Whether more can be read.
enum Reading {
    Open,
    /// The peer sends no more.
    Over,
    /// The channel has failed, behind bytes that it had decoded before.
    Broken(Box<ChannelFault>),
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// So many bytes in [`Scratch::received`].
    Received(usize),
    /// All of [`Scratch::decoded`]. It is empty if the channel has only reached another stage.
    Decoded,
    /// The peer sends no more.
    End,
}

impl Got {
    /// The bytes of MQTT; empty at the end.
    pub(crate) fn bytes<'a>(self, received: &'a [u8], decoded: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Received(count) => received.get(..count).unwrap_or_default(),
            Self::Decoded => decoded,
            Self::End => &[],
        }
    }
}

/// The error of one side.
#[derive(Debug)]
pub(crate) enum WireError {
    /// The socket: a reset, or a timeout.
    Io(io::Error),
    /// The channel has refused what came.
    Channel(ChannelFault),
}

impl Wire {
    pub(crate) fn new(socket: Socket, channel: Option<Box<dyn Channel>>) -> Self {
        Self { socket, channel, unsent: Vec::new(), gone: 0, reading: Reading::Open }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn channel(&mut self) -> Option<&mut (dyn Channel + 'static)> {
        self.channel.as_deref_mut()
    }

    /// The stage of the channel's handshake.
    pub(crate) fn stage(&self) -> Stage {
        self.channel.as_ref().map_or(Stage::Open, |channel| channel.stage())
    }

    /// The number of bytes that the kernel has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len() - self.gone
    }

    /// Reads once, at most `most` bytes of the socket, into the buffers of the thread.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
    ) -> Poll<Result<Got, WireError>> {
        loop {
            match std::mem::replace(&mut self.reading, Reading::Over) {
                Reading::Open => self.reading = Reading::Open,
                Reading::Over => return Poll::Ready(Ok(Got::End)),
                Reading::Broken(fault) => return Poll::Ready(Err(WireError::Channel(*fault))),
            }
            if self.channel.is_some() && self.unsent() > MAX_WAITING_ANSWERS {
                ready!(self.poll_flush(cx))?;
            }
            let room = scratch.received.len().min(most);
            let mut buffer = ReadBuf::new(scratch.received.get_mut(..room).unwrap_or_default());
            ready!(self.socket.poll_read(cx, &mut buffer)).map_err(WireError::Io)?;
            let received = buffer.filled_mut();
            if received.is_empty() {
                self.reading = Reading::Over;
                return Poll::Ready(Ok(Got::End));
            }
            let Some(channel) = &mut self.channel else {
                return Poll::Ready(Ok(Got::Received(received.len())));
            };
            scratch.decoded.clear();
            scratch.encoded.clear();
            let stage = channel.stage();
            let flow = channel.decode(received, &mut scratch.decoded, &mut scratch.encoded);
            let has_moved = channel.stage() != stage;
            self.reading = match flow {
                Ok(Flow::Open) => Reading::Open,
                Ok(Flow::Ended) => Reading::Over,
                Err(fault) => Reading::Broken(Box::new(fault)),
            };
            self.push(cx, &scratch.encoded)?;
            // A new stage has a deadline of its own, or something is to be sent.
            if has_moved || !scratch.decoded.is_empty() {
                return Poll::Ready(Ok(Got::Decoded));
            }
        }
    }

    /// Sends what the peer takes now of these bytes of MQTT, and keeps the rest for [`poll_flush`](Self::poll_flush).
    pub(crate) fn send(
        &mut self,
        cx: &mut Context<'_>,
        mqtt: &[u8],
        encoded: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let Some(channel) = &mut self.channel else { return self.push(cx, mqtt) };
        encoded.clear();
        channel.encode(mqtt, encoded).map_err(WireError::Channel)?;
        self.push(cx, encoded)
    }

    /// Sends what is left. Ready when the kernel has taken all of it.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        while let Some(rest) = self.unsent.get(self.gone..).filter(|rest| !rest.is_empty()) {
            let count = ready!(self.socket.poll_write(cx, rest)).map_err(WireError::Io)?;
            self.gone += count;
        }
        if self.gone > 0 {
            // Idle, a session holds no buffer.
            self.unsent = Vec::new();
            self.gone = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the goodbye of the channel.
    pub(crate) fn say_goodbye(&mut self, cx: &mut Context<'_>) -> Result<(), WireError> {
        let Some(channel) = &mut self.channel else { return Ok(()) };
        let mut goodbye = Vec::new();
        channel.close(&mut goodbye);
        self.push(cx, &goodbye)
    }

    /// Sends encoded bytes, and keeps what the kernel does not take.
    fn push(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> Result<(), WireError> {
        if self.poll_flush(cx)?.is_ready() {
            while !bytes.is_empty() {
                match self.socket.poll_write(cx, bytes).map_err(WireError::Io)? {
                    Poll::Ready(count) => bytes = bytes.get(count..).unwrap_or_default(),
                    Poll::Pending => break,
                }
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }
}

/// For the steps before the relay, which are tasks and not loops.
impl Wire {
    /// Reads once, at most `most` bytes of the socket, and appends what has come. Says whether more can come.
    pub(crate) async fn receive(&mut self, into: &mut Vec<u8>, most: usize) -> Result<bool, WireError> {
        poll_fn(|cx| self.poll_receive_into(cx, into, most)).await
    }

    pub(crate) fn poll_receive_into(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<Result<bool, WireError>> {
        with_scratch(|scratch| {
            let got = ready!(self.poll_receive(cx, scratch, most))?;
            into.extend_from_slice(got.bytes(&scratch.received, &scratch.decoded));
            Poll::Ready(Ok(got != Got::End))
        })
    }

    /// Sends what the peer takes now of these bytes of MQTT, and keeps the rest.
    pub(crate) async fn send_now(&mut self, mqtt: &[u8]) -> Result<(), WireError> {
        poll_fn(|cx| Poll::Ready(with_scratch(|scratch| self.send(cx, mqtt, &mut scratch.encoded)))).await
    }

    /// Sends bytes of MQTT until the kernel has all of them.
    pub(crate) async fn send_all(&mut self, mqtt: &[u8]) -> Result<(), WireError> {
        self.send_now(mqtt).await?;
        self.flush().await
    }

    /// Says goodbye in the channel, as far as the peer takes it now.
    pub(crate) async fn goodbye_now(&mut self) -> Result<(), WireError> {
        poll_fn(|cx| Poll::Ready(self.say_goodbye(cx))).await
    }

    /// Lets the peer read what it was sent last, for `limit` at most, and waits until it closes.
    ///
    /// A socket that is closed while something of the peer's is unread sends a reset, and that may overtake the answer.
    pub(crate) async fn linger(&mut self, limit: Duration) {
        let lingering = async {
            self.flush().await?;
            self.socket.shut_down()?;
            poll_fn(|cx| with_scratch(|scratch| self.poll_discard(cx, scratch))).await
        };
        // Nobody can know whether the peer has read everything.
        let _ = timeout(limit, lingering).await;
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Result<(), WireError>> {
        loop {
            let mut buffer = ReadBuf::new(&mut scratch.received);
            ready!(self.socket.poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends bytes in front of the channel's, in one write with what the channel itself begins with.
    pub(crate) async fn send_first(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut first = bytes.to_vec();
        if let Some(channel) = &mut self.channel {
            channel.start(&mut first).map_err(WireError::Channel)?;
        }
        poll_fn(|cx| Poll::Ready(self.push(cx, &first))).await?;
        self.flush().await
    }

    pub(crate) async fn flush(&mut self) -> Result<(), WireError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Channel(fault) => f.write_str(&fault.detail),
        }
    }
}
