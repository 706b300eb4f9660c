//! One listener as its sessions see it: its options, the number of clients without a login, and the traffic counters.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use proxyproto_mqtt::PacketType;

use crate::options::ListenerOptions;

/// One listener of a gateway.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) name: Arc<str>,
    options: RwLock<Arc<ListenerOptions>>,
    unauthenticated: AtomicUsize,
    /// The counters of each worker. Only the worker's own thread writes them.
    shards: Box<[Shard]>,
}

impl Listening {
    pub(crate) fn new(options: ListenerOptions, workers: usize) -> Self {
        Self {
            name: Arc::clone(&options.name),
            options: RwLock::new(Arc::new(options)),
            unauthenticated: AtomicUsize::new(0),
            shards: (0..workers).map(|_| Shard::default()).collect(),
        }
    }

    pub(crate) fn options(&self) -> Arc<ListenerOptions> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn update(&self, options: ListenerOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// How many connections have no CONNACK yet.
    pub(crate) fn unauthenticated(&self) -> usize {
        self.unauthenticated.load(Ordering::Relaxed)
    }

    /// Counts one more connection without a CONNACK. If there are too many, the error says how many.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Guest, usize> {
        let most = match self.options().max_unauthenticated {
            0 => usize::MAX,
            most => most,
        };
        let one_more = |count| (count < most).then_some(count + 1);
        self.unauthenticated.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)?;
        Ok(Guest { listening: Arc::clone(self) })
    }

    /// The counters for the sessions on this worker.
    pub(crate) fn shard(&self, worker: usize) -> Option<&Shard> {
        self.shards.get(worker)
    }

    /// The sums over all workers.
    pub(crate) fn counts(&self) -> ListenerCounts {
        let mut counts = ListenerCounts::default();
        for shard in &self.shards {
            shard.add_to(&mut counts);
        }
        counts
    }
}

/// A connection that has not logged in yet. Drop this when it logs in or ends.
#[derive(Debug)]
pub(crate) struct Guest {
    listening: Arc<Listening>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.listening.unauthenticated.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The traffic of a listener's sessions, by packet type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerCounts {
    /// Packets from clients, indexed by the number of their type.
    pub packets_in: [u64; 16],
    /// Packets to clients, indexed by the number of their type.
    pub packets_out: [u64; 16],
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// How often the publish limit has delayed a client.
    pub publish_delays: u64,
}

/// The counters of one worker. They share no cache line with another worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Shard {
    packets: [[AtomicU64; 16]; 2],
    bytes: [AtomicU64; 2],
    publish_delays: AtomicU64,
}

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// The packets in a piece of a stream, by type.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PacketCounts([u32; 16]);

impl PacketCounts {
    #[inline]
    pub(crate) fn count(&mut self, packet_type: PacketType) {
        if let Some(count) = self.0.get_mut(packet_type as usize) {
            *count += 1;
        }
    }

    pub(crate) fn of(self, packet_type: PacketType) -> u32 {
        self.0.get(packet_type as usize).copied().unwrap_or_default()
    }

    pub(crate) fn sum(self) -> u32 {
        self.0.iter().sum()
    }
}

impl Shard {
    pub(crate) fn count(&self, direction: Direction, bytes: usize, packets: &PacketCounts) {
        let [r#in, out] = &self.packets;
        let (counters, [bytes_in, bytes_out]) = match direction {
            Direction::In => (r#in, &self.bytes),
            Direction::Out => (out, &self.bytes),
        };
        add(if direction == Direction::In { bytes_in } else { bytes_out }, bytes as u64);
        for (counter, count) in counters.iter().zip(packets.0) {
            if count > 0 {
                add(counter, count.into());
            }
        }
    }

    pub(crate) fn count_publish_delay(&self) {
        add(&self.publish_delays, 1);
    }

    fn add_to(&self, counts: &mut ListenerCounts) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [packets_in, packets_out] = &self.packets;
        for (sums, counters) in [(&mut counts.packets_in, packets_in), (&mut counts.packets_out, packets_out)]
        {
            for (sum, counter) in sums.iter_mut().zip(counters) {
                *sum += read(counter);
            }
        }
        let [bytes_in, bytes_out] = &self.bytes;
        counts.bytes_in += read(bytes_in);
        counts.bytes_out += read(bytes_out);
        counts.publish_delays += read(&self.publish_delays);
    }
}

/// Only one thread writes, so a load and a store lose no count. `fetch_add` would cost a locked instruction.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}
