//! Maps whose keys come from strangers: with a hash under a random key (`SipHash`), so that nobody can choose addresses that
//! all fall into one bucket. hashlink's own hash (foldhash) makes no such promise.

use std::hash::RandomState;

/// A map in order of insertion; `to_back` makes it one in order of use.
#[expect(clippy::disallowed_types, reason = "with the keyed hash")]
pub(crate) type LinkedHashMap<K, V> = hashlink::LinkedHashMap<K, V, RandomState>;
