//! Maps whose keys come from strangers. Their hash (`SipHash`) has a random key, so that nobody can choose addresses that all
//! fall into one bucket. The default hash of hashlink (foldhash) gives no such guarantee.

use std::hash::RandomState;

/// A map in the order of insertion. With `to_back` it can be kept in the order of use.
#[expect(clippy::disallowed_types, reason = "with the keyed hash")]
pub(crate) type LinkedHashMap<K, V> = hashlink::LinkedHashMap<K, V, RandomState>;
