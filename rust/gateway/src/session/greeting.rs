//! The first steps: the handshake of the channel, and the CONNECT.

use std::sync::Arc;

use proxyproto_mqtt::{Connect, Detail, PacketType, Status};
use tokio::time::{Instant, timeout_at};

use super::way::{TurnedAway, Visitor};
use crate::cause::Cause;
use crate::channel::{ChannelFault, Stage};
use crate::listening::Direction;
use crate::wire::WireError;

impl Visitor {
    /// Carries out the handshake of the channel. Each layer has its own deadline.
    pub(super) async fn open_channel(&mut self) -> Result<(), Box<TurnedAway>> {
        if self.client.stage() == Stage::Open {
            return Ok(());
        }
        let opened = self.shake_hands().await;
        // No other reference to the arrival exists yet.
        if let (Some(channel), Some(arrival)) = (self.client.channel(), Arc::get_mut(&mut self.arrival)) {
            arrival.facts = channel.facts();
        }
        opened
    }

    async fn shake_hands(&mut self) -> Result<(), Box<TurnedAway>> {
        let mtu = self.options.mqtt.max_connect_size;
        if let Err(error) = self.client.send_first(&[]).await {
            return Err(self.broken(error));
        }
        loop {
            let stage = self.client.stage();
            let limit = match stage {
                Stage::Open => return Ok(()),
                Stage::Tls => self.options.mqtt.tls_timeout,
                Stage::WebSocket => self.options.mqtt.ws_timeout,
            };
            let deadline = Instant::now() + limit;
            while self.client.stage() == stage {
                match timeout_at(deadline, self.client.receive(&mut self.received, mtu)).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return Err(self.cut_off()),
                    Ok(Err(error)) => return Err(self.broken(error)),
                    Err(_) => return Err(TurnedAway::new(cause_of(stage), "timeout")),
                }
            }
        }
    }

    /// The handshake has failed.
    fn broken(&mut self, error: WireError) -> Box<TurnedAway> {
        match error {
            WireError::Io(_) => self.cut_off(),
            WireError::Channel(fault) => refused_by(fault, self.client.stage()),
        }
    }

    /// Says why the handshake failed when the peer has closed before its end.
    fn cut_off(&mut self) -> Box<TurnedAway> {
        let stage = self.client.stage();
        match self.client.channel() {
            Some(channel) => refused_by(channel.cut_off(), stage),
            None => TurnedAway::new(cause_of(stage), "closed"),
        }
    }

    /// Reads the CONNECT, whole and strictly.
    pub(super) async fn read_connect(&mut self) -> Result<Arc<Connect>, Box<TurnedAway>> {
        let deadline = Instant::now() + self.options.mqtt.connect_timeout;
        loop {
            let needed = match self.decode_connect()? {
                Status::Complete(connect) => return Ok(connect),
                Status::Partial { needed } => needed,
            };
            // As much as the largest CONNECT may have, so that a flood behind it waits in the kernel.
            let most = self.options.mqtt.max_connect_size.saturating_sub(self.received.len()).max(needed);
            match timeout_at(deadline, self.client.receive(&mut self.received, most)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false) | Err(WireError::Io(_))) => {
                    let detail = format!("after {} bytes", self.received.len());
                    return Err(TurnedAway::new(Cause::ClosedEarly, detail));
                }
                Ok(Err(WireError::Channel(fault))) => return Err(refused_by(fault, Stage::Open)),
                Err(_) => return Err(TurnedAway::new(Cause::NoConnect, "no whole CONNECT in time")),
            }
        }
    }

    fn decode_connect(&mut self) -> Result<Status<Arc<Connect>>, Box<TurnedAway>> {
        let max_size = u32::try_from(self.options.mqtt.max_connect_size).unwrap_or(u32::MAX);
        let read = Connect::read(&self.received, self.options.upstream.versions, max_size);
        let connect = match read {
            Ok(Status::Complete(connect)) => Arc::new(connect.to_owned()),
            Ok(Status::Partial { needed }) => return Ok(Status::Partial { needed }),
            Err(refusal) => {
                let is_header =
                    matches!(refusal.detail, Detail::NotConnect(start) if start.is_proxy_header());
                // Behind a header that was read, this one comes from the client and is no CONNECT.
                let cause = match self.arrival.header {
                    None if is_header => Cause::UnexpectedHeader,
                    _ => refusal.reason.into(),
                };
                return Err(Box::new(TurnedAway {
                    version: refusal.version,
                    is_bridge_probe: refusal.is_bridge_probe(),
                    client_id: refusal.client_id,
                    ..*TurnedAway::new(cause, refusal.detail.to_string())
                }));
            }
        };
        self.count(Direction::In, connect.raw(), PacketType::Connect);
        self.received.drain(..connect.raw().len());
        self.connect = Some(Arc::clone(&connect));
        Ok(Status::Complete(connect))
    }
}

fn cause_of(stage: Stage) -> Cause {
    match stage {
        Stage::Tls => Cause::TlsFailed,
        Stage::WebSocket => Cause::WsFailed,
        Stage::Open => Cause::ClosedEarly,
    }
}

/// The channel did not take what has come.
pub(super) fn refused_by(fault: ChannelFault, stage: Stage) -> Box<TurnedAway> {
    TurnedAway::new(fault.cause.unwrap_or(cause_of(stage)), fault.detail)
}
