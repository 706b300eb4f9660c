//! One channel inside another, such as WebSocket in TLS.

use std::cell::RefCell;

use super::{Channel, ChannelFault, Flow, Stage};
use crate::facts::Facts;

/// A channel inside another.
pub(super) struct Layered<Inner> {
    outer: Box<dyn Channel>,
    inner: Inner,
}

impl<Inner: Channel> Layered<Inner> {
    pub(super) fn new(outer: Box<dyn Channel>, inner: Inner) -> Self {
        Self { outer, inner }
    }
}

/// Bytes between the two channels.
#[derive(Default)]
struct Between {
    inwards: Vec<u8>,
    outwards: Vec<u8>,
}

thread_local! {
    static BETWEEN: RefCell<Between> = RefCell::default();
}

impl<Inner: Channel> Channel for Layered<Inner> {
    fn stage(&self) -> Stage {
        match self.outer.stage() {
            Stage::Open => self.inner.stage(),
            stage => stage,
        }
    }

    fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        // The inner one is a server's, which never begins.
        self.outer.start(wire)
    }

    fn decode(
        &mut self,
        received: &mut [u8],
        mqtt: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<Flow, ChannelFault> {
        BETWEEN.with_borrow_mut(|Between { inwards, outwards }| {
            inwards.clear();
            outwards.clear();
            let outer = self.outer.decode(received, inwards, answer);
            // What has come before the outer one failed, or its peer said goodbye, counts.
            let inner =
                if inwards.is_empty() { Ok(Flow::Open) } else { self.inner.decode(inwards, mqtt, outwards) };
            self.outer.encode(outwards, answer)?;
            match (outer?, inner?) {
                (Flow::Open, Flow::Open) => Ok(Flow::Open),
                _ => Ok(Flow::Ended),
            }
        })
    }

    fn encode(&mut self, mqtt: &[u8], wire: &mut Vec<u8>) -> Result<(), ChannelFault> {
        BETWEEN.with_borrow_mut(|Between { outwards, .. }| {
            outwards.clear();
            self.inner.encode(mqtt, outwards)?;
            self.outer.encode(outwards, wire)
        })
    }

    fn close(&mut self, wire: &mut Vec<u8>) {
        let mut goodbye = Vec::new();
        self.inner.close(&mut goodbye);
        // Without it the peer sees the goodbye of the outer one.
        let _ = self.outer.encode(&goodbye, wire);
        self.outer.close(wire);
    }

    fn cut_off(&self) -> ChannelFault {
        match self.outer.stage() {
            Stage::Open => self.inner.cut_off(),
            _ => self.outer.cut_off(),
        }
    }

    fn facts(&mut self) -> Facts {
        let Facts { tls, forwarded } = self.outer.facts();
        let inner = self.inner.facts();
        Facts { tls: tls.or(inner.tls), forwarded: forwarded.or(inner.forwarded) }
    }
}
