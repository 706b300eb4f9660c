//! All logins and sessions, found by their token; and the newest token of each client id.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Handle;
use crate::events::Token;

/// All logins and sessions of a gateway.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Shard]>,
    /// Its keys are random, so strangers cannot choose ids that meet.
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    handles: Mutex<HashMap<Token, Arc<Handle>>>,
    /// The last token of each client id, by the id's hash.
    ids: Mutex<HashMap<u64, Token>>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), hasher: RandomState::new() }
    }

    pub(crate) fn insert(&self, handle: &Arc<Handle>) {
        self.handles(handle.token).insert(handle.token, Arc::clone(handle));
    }

    pub(crate) fn remove(&self, token: Token) {
        self.handles(token).remove(&token);
    }

    pub(crate) fn get(&self, token: Token) -> Option<Arc<Handle>> {
        self.handles(token).get(&token).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(&shard.handles).len()).sum()
    }

    /// All handles, as they are at this moment.
    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.shards
            .iter()
            .flat_map(|shard| lock(&shard.handles).values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Notes that the login with this token goes upstream under this client id. It replaces the newest one so far.
    pub(crate) fn enter(&self, client_id: &str, token: Token) -> Entry {
        let hash = self.hasher.hash_one(client_id);
        let before = self.ids(hash).insert(hash, token);
        if let Some(replaced) = before.and_then(|token| self.get(token)) {
            replaced.replace();
        }
        Entry { hash, token }
    }

    /// Gives up the client id, unless a newer login has it.
    pub(crate) fn leave(&self, entry: Entry) {
        let mut ids = self.ids(entry.hash);
        if ids.get(&entry.hash) == Some(&entry.token) {
            ids.remove(&entry.hash);
        }
    }

    fn handles(&self, token: Token) -> MutexGuard<'_, HashMap<Token, Arc<Handle>>> {
        lock(&self.shard(token.number()).handles)
    }

    fn ids(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, Token>> {
        lock(&self.shard(hash).ids)
    }

    #[expect(clippy::indexing_slicing, reason = "there are as many shards")]
    fn shard(&self, number: u64) -> &Shard {
        &self.shards[(number % SHARDS) as usize]
    }
}

/// A session's claim on its client id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    hash: u64,
    token: Token,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// With 16 shards the workers seldom wait for each other.
const SHARDS: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_knows_whether_another_has_come_under_its_id() {
        let table = Table::new();
        let handles = [1, 2, 3, 4].map(|number| Arc::new(Handle::new(Token::new(number))));
        for handle in &handles {
            table.insert(handle);
        }
        let replaced = || [0, 1, 2, 3].map(|at: usize| handles[at].is_replaced());
        let [first, second, _] =
            [("a", 1), ("a", 2), ("b", 3)].map(|(id, number)| table.enter(id, Token::new(number)));
        assert_eq!(replaced(), [true, false, false, false]);
        table.leave(first);
        table.leave(second);
        table.enter("a", Token::new(4));
        assert_eq!(replaced(), [true, false, false, false], "the second had gone before");
        table.enter("b", Token::new(4));
        assert_eq!(replaced(), [true, false, true, false]);
    }

    #[test]
    fn handles_are_found_until_they_are_removed() {
        let table = Table::new();
        for number in 0..40 {
            table.insert(&Arc::new(Handle::new(Token::new(number))));
        }
        assert_eq!((table.len(), table.all().len()), (40, 40));
        assert_eq!(table.get(Token::new(33)).unwrap().token, Token::new(33));
        table.remove(Token::new(33));
        assert!(table.get(Token::new(33)).is_none());
        assert_eq!(table.len(), 39);
    }
}
