//! One rule: for whom it is, and what it says.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Pattern;

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message, or leave one as its will.
    Publish,
    /// Get messages.
    Subscribe,
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "MQTT knows no more")]
pub struct Actions {
    /// About messages that clients send.
    pub publish: bool,
    /// About messages that clients get.
    pub subscribe: bool,
}

impl Actions {
    /// About both.
    pub const ALL: Self = Self { publish: true, subscribe: true };

    fn has(self, action: Action) -> bool {
        match action {
            Action::Publish => self.publish,
            Action::Subscribe => self.subscribe,
        }
    }
}

/// Who wants something.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers make it")]
pub struct Subject<'a> {
    /// Its client id.
    pub client_id: &'a str,
    /// Its user name, if it has one.
    pub username: Option<&'a str>,
    /// The address of the real client.
    pub address: IpAddr,
}

/// One rule. It matches whom all of `users`, `clients` and `networks` match.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers make it")]
pub struct Rule {
    /// The user names; `None`: whoever it is, with or without a name.
    pub users: Option<HashSet<String>>,
    /// The client ids; `None`: all.
    pub clients: Option<HashSet<String>>,
    /// Where the real client is; `None`: anywhere.
    pub networks: Option<Vec<IpNet>>,
    /// The topics; empty: all, those of the server (`$...`) too.
    pub topics: Vec<Pattern>,
    /// What it is about.
    pub actions: Actions,
    /// What it says.
    pub allow: bool,
}

impl Rule {
    /// A rule about everybody, every topic and both actions.
    #[must_use]
    pub fn new(allow: bool) -> Self {
        Self { users: None, clients: None, networks: None, topics: Vec::new(), actions: Actions::ALL, allow }
    }

    pub(super) fn is_for(&self, subject: &Subject<'_>, action: Action) -> bool {
        let contains = |names: &HashSet<String>, name: &str| names.contains(name);
        self.actions.has(action)
            && self.clients.as_ref().is_none_or(|clients| contains(clients, subject.client_id))
            && self
                .users
                .as_ref()
                .is_none_or(|users| subject.username.is_some_and(|name| contains(users, name)))
            && self.networks.as_ref().is_none_or(|networks| {
                let address = subject.address.to_canonical();
                networks.iter().any(|network| network.contains(&address))
            })
    }
}
