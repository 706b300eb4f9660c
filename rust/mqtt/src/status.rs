//! A packet, or how much of it is missing.

/// A packet, or how much of it is still missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<T> {
    /// The packet is whole.
    Complete(T),
    /// The bytes so far may become a packet.
    Partial {
        /// The least number of further bytes that can complete the packet. It is at least 1, and never more
        /// than the rest of any packet that starts with these bytes.
        needed: usize,
    },
}
