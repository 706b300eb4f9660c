//! The pool of servers: all their addresses, which of them are up, and which is next.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::balance::choose;
use super::target::{Address, Place, Target};
use crate::options::{Server, UpstreamOptions};

/// The servers behind the gateway.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    turn: AtomicUsize,
    /// Whether every name has been looked up once.
    is_resolved: watch::Sender<bool>,
    /// Changes when the options change, because names may have to be looked up.
    pub(crate) servers_changed: Notify,
    /// Changes when the addresses change, because there may be new servers to check.
    pub(crate) targets_changed: Notify,
}

#[derive(Debug)]
struct State {
    options: Arc<UpstreamOptions>,
    targets: Arc<[Arc<Target>]>,
    /// What names were last resolved to.
    known: HashMap<Server, Vec<SocketAddr>>,
    /// Why names could not be looked up the last time.
    unknown: HashMap<Server, String>,
}

impl Pool {
    pub(crate) fn new(options: Arc<UpstreamOptions>) -> Self {
        let state =
            State { options, targets: Arc::default(), known: HashMap::new(), unknown: HashMap::new() };
        let pool = Self {
            state: Mutex::new(state),
            turn: AtomicUsize::new(0),
            is_resolved: watch::Sender::new(false),
            servers_changed: Notify::new(),
            targets_changed: Notify::new(),
        };
        pool.lock().arrange();
        pool
    }

    pub(crate) fn options(&self) -> Arc<UpstreamOptions> {
        Arc::clone(&self.lock().options)
    }

    pub(crate) fn targets(&self) -> Arc<[Arc<Target>]> {
        Arc::clone(&self.lock().targets)
    }

    /// Puts other options in force. Connections stay, even those to servers that the options no longer name.
    pub(crate) fn update(&self, options: Arc<UpstreamOptions>) {
        let mut state = self.lock();
        let is_known =
            |server: &Server| !matches!(server, Server::Name(..)) || state.known.contains_key(server);
        if !options.servers.iter().all(is_known) {
            self.is_resolved.send_replace(false);
        }
        state.options = options;
        state.arrange();
        let targets = Arc::clone(&state.targets);
        drop(state);
        targets.iter().for_each(|target| target.check_anew());
        self.servers_changed.notify_one();
        self.targets_changed.notify_one();
    }

    /// What a name has been resolved to.
    pub(crate) fn resolved(&self, name: &Server, mut addresses: Vec<SocketAddr>) {
        // A resolver gives the addresses in another order each time.
        addresses.sort_unstable();
        let mut state = self.lock();
        state.unknown.remove(name);
        if state.known.get(name) != Some(&addresses) {
            state.known.insert(name.clone(), addresses);
            state.arrange();
            drop(state);
            self.targets_changed.notify_one();
        }
    }

    /// A name could not be looked up just now. What is known of it holds.
    pub(crate) fn unresolved(&self, name: &Server, error: String) {
        self.lock().unknown.insert(name.clone(), error);
    }

    /// Every name of these options has been looked up, with success or without it.
    pub(crate) fn all_resolved(&self, options: &Arc<UpstreamOptions>) {
        if Arc::ptr_eq(options, &self.lock().options) {
            self.is_resolved.send_replace(true);
        }
    }

    /// Waits until every name has been looked up once.
    pub(crate) async fn until_resolved(&self) {
        // An error says that the sender has gone, which is this.
        let _ = self.is_resolved.subscribe().wait_for(|is_resolved| *is_resolved).await;
    }

    /// A place for the client on a server that has not been tried; `None` if there is none.
    pub(crate) fn place(
        &self,
        options: &UpstreamOptions,
        client_id: &[u8],
        tried: &[Arc<Target>],
    ) -> Option<Place> {
        let targets = self.targets();
        let is_tried = |target: &Arc<Target>| tried.iter().any(|other| Arc::ptr_eq(other, target));
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        loop {
            let candidates: Vec<_> = targets
                .iter()
                .map(|target| {
                    let mut candidate = target.candidate(options.max_connections);
                    candidate.is_eligible &= !is_tried(target);
                    candidate
                })
                .collect();
            let target = targets.get(choose(options.balance, &candidates, turn, client_id)?)?;
            // Another worker may have taken the last place meanwhile; then there is one eligible server less.
            if let Some(place) = target.take_place(options.max_connections) {
                return Some(place);
            }
        }
    }

    /// Why there is no place, where nothing has been tried.
    pub(crate) fn why_none(&self) -> String {
        let State { options, targets, known, unknown } = &*self.lock();
        let most = options.max_connections.unwrap_or(usize::MAX);
        let mut reasons: Vec<_> = targets
            .iter()
            .map(|target| {
                if target.is_up() {
                    format!("{} is full (max_connections {most})", target.name)
                } else {
                    format!("{} is down ({})", target.name, target.trouble())
                }
            })
            .collect();
        let is_nameless = |server: &&Server| {
            matches!(server, Server::Name(..)) && known.get(server).is_none_or(Vec::is_empty)
        };
        reasons.extend(options.servers.iter().filter(is_nameless).map(|name| match unknown.get(name) {
            Some(error) => format!("{name} has no address ({error})"),
            None => format!("{name} has no address"),
        }));
        listed(reasons.into_iter())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first few of these, and how many more there are.
pub(crate) fn listed(texts: impl ExactSizeIterator<Item = String>) -> String {
    let more = texts.len().saturating_sub(MOST_NAMED);
    let named = texts.take(MOST_NAMED).collect::<Vec<_>>().join("; ");
    if more == 0 { named } else { format!("{named}; and {more} more") }
}

/// How many servers one line names. The name of one may have any number of addresses.
const MOST_NAMED: usize = 8;

impl State {
    /// Makes a target for each address of the options and each address of a name. A target that stays keeps its state.
    fn arrange(&mut self) {
        let mut seen = HashSet::new();
        let mut targets: Vec<Arc<Target>> = Vec::new();
        for server in &self.options.servers {
            for address in self.addresses(server) {
                if !seen.insert(address.clone()) {
                    continue;
                }
                let configured = server.to_string();
                let is_same =
                    |old: &&Arc<Target>| old.address == address && *old.name.configured == *configured;
                targets.push(match self.targets.iter().find(is_same) {
                    Some(old) => Arc::clone(old),
                    None => Arc::new(Target::new(configured.into(), address)),
                });
            }
        }
        let stays = |old: &Arc<Target>| targets.iter().any(|target| Arc::ptr_eq(target, old));
        self.targets.iter().filter(|old| !stays(old)).for_each(|old| old.remove());
        self.known.retain(|name, _| self.options.servers.contains(name));
        self.unknown.retain(|name, _| self.options.servers.contains(name));
        self.targets = targets.into();
    }

    fn addresses(&self, server: &Server) -> Vec<Address> {
        match server {
            Server::Address(address) => vec![Address::Ip(*address)],
            Server::Unix(path) => vec![Address::Unix(path.as_str().into())],
            Server::Name(..) => {
                let known = self.known.get(server).map(Vec::as_slice).unwrap_or_default();
                known.iter().copied().map(Address::Ip).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Balance;

    fn options(servers: &[&str]) -> UpstreamOptions {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        UpstreamOptions { servers, balance: Balance::RoundRobin, ..UpstreamOptions::default() }
    }

    fn addresses(pool: &Pool) -> Vec<String> {
        pool.targets().iter().map(|target| target.address.to_string()).collect()
    }

    fn ips(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_address_of_a_name_counts_in_any_order() {
        let pool = Pool::new(Arc::new(options(&["10.0.0.1:1", "broker:2", "unix:/run/b"])));
        assert_eq!(addresses(&pool), ["10.0.0.1:1", "unix:/run/b"]);
        let name = "broker:2".parse().unwrap();
        pool.resolved(&name, ips(&["10.0.0.3:2", "10.0.0.2:2"]));
        let both = ["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:2", "unix:/run/b"];
        assert_eq!(addresses(&pool), both);
        let old = pool.targets();
        pool.resolved(&name, ips(&["10.0.0.2:2", "10.0.0.3:2"]));
        assert!(Arc::ptr_eq(&old, &pool.targets()));
        pool.resolved(&name, ips(&["10.0.0.3:2", "10.0.0.4:2"]));
        assert_eq!(addresses(&pool), ["10.0.0.1:1", "10.0.0.3:2", "10.0.0.4:2", "unix:/run/b"]);
        let new = pool.targets();
        assert!(Arc::ptr_eq(&old[2], &new[1]), "one that stays keeps what is known of it");
        assert!(old[1].is_removed() && !old[2].is_removed());
        pool.update(Arc::new(options(&["broker:2"])));
        assert_eq!(addresses(&pool), ["10.0.0.3:2", "10.0.0.4:2"]);
        pool.resolved(&name, ips(&[]));
        assert_eq!(pool.why_none(), "broker:2 has no address");
        pool.unresolved(&name, "Name or service not known".into());
        assert_eq!(pool.why_none(), "broker:2 has no address (Name or service not known)");
        pool.resolved(&name, ips(&["10.0.0.3:2"]));
        pool.unresolved(&name, "Try again".into());
        assert_eq!(addresses(&pool), ["10.0.0.3:2"], "what is known holds");
    }

    #[test]
    fn an_address_counts_once() {
        let pool = Pool::new(Arc::new(options(&["10.0.0.1:1", "a:1", "b:1"])));
        for name in ["a:1", "b:1"] {
            pool.resolved(&name.parse().unwrap(), ips(&["10.0.0.1:1", "10.0.0.2:1"]));
        }
        assert_eq!(addresses(&pool), ["10.0.0.1:1", "10.0.0.2:1"]);
    }

    #[test]
    fn places_are_limited_for_each_server_and_given_back() {
        let options = UpstreamOptions { max_connections: Some(1), ..options(&["10.0.0.1:1", "10.0.0.2:1"]) };
        let pool = Pool::new(Arc::new(options.clone()));
        let first = pool.place(&options, b"", &[]).unwrap();
        let second = pool.place(&options, b"", &[]).unwrap();
        assert!(!Arc::ptr_eq(first.target(), second.target()));
        assert!(pool.place(&options, b"", &[]).is_none());
        assert_eq!(
            pool.why_none(),
            "10.0.0.1:1 is full (max_connections 1); 10.0.0.2:1 is full (max_connections 1)"
        );
        drop(first);
        assert!(pool.place(&options, b"", &[]).is_some());
        assert!(pool.place(&options, b"", &[Arc::clone(&pool.targets()[0])]).is_none());
        drop(second);
        let check = &options.check;
        for target in pool.targets().iter() {
            for number in 0..check.fall {
                target.end_check(number.into(), Err("no answer".into()), check);
            }
        }
        assert!(pool.place(&options, b"", &[]).is_none());
        assert_eq!(pool.why_none(), "10.0.0.1:1 is down (no answer); 10.0.0.2:1 is down (no answer)");
    }

    #[test]
    fn a_line_names_a_few_servers() {
        let names = |count: usize| listed((0..count).map(|number| number.to_string()));
        assert_eq!(names(8), "0; 1; 2; 3; 4; 5; 6; 7");
        assert_eq!(names(1000), "0; 1; 2; 3; 4; 5; 6; 7; and 992 more");
    }
}
