//! Which of the rules for the same topics may be about a client: found by its names and its address, not one rule after the other.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::rule::{Action, Rule, Subject};

/// Rules for the same topics, by number. Each stands under its narrowest condition; the other conditions are asked then.
#[derive(Debug, Default)]
pub(super) struct Who {
    by_client: HashMap<Box<str>, Vec<usize>>,
    by_user: HashMap<Box<str>, Vec<usize>>,
    /// Under each prefix length that is in use.
    by_network: Vec<(u8, HashMap<u128, Vec<usize>>)>,
    anybody: Vec<usize>,
}

impl Who {
    /// Adds a rule. The numbers must come in their order.
    pub(super) fn add(&mut self, at: usize, rule: &Rule) {
        let under_names = |names: &mut HashMap<Box<str>, Vec<usize>>,
                           own: &mut dyn Iterator<Item = &String>| {
            for name in own {
                push(names.entry(name.as_str().into()).or_default(), at);
            }
        };
        if let Some(clients) = &rule.clients {
            under_names(&mut self.by_client, &mut clients.iter());
        } else if let Some(users) = &rule.users {
            under_names(&mut self.by_user, &mut users.iter());
        } else if let Some(networks) = &rule.networks {
            for network in networks {
                let (length, bits) = prefix(network);
                let place = self.by_network.iter().position(|(own, _)| *own == length).unwrap_or_else(|| {
                    self.by_network.push((length, HashMap::new()));
                    self.by_network.len() - 1
                });
                if let Some((_, networks)) = self.by_network.get_mut(place) {
                    push(networks.entry(bits).or_default(), at);
                }
            }
        } else {
            push(&mut self.anybody, at);
        }
    }

    /// The first rule before `limit` that is about this client.
    pub(super) fn first(
        &self,
        rules: &[Rule],
        subject: &Subject<'_>,
        action: Action,
        limit: usize,
    ) -> Option<usize> {
        let mut first = limit;
        let mut look = |numbers: &[usize]| {
            for at in numbers {
                if *at >= first {
                    return;
                }
                if rules.get(*at).is_some_and(|rule| rule.is_for(subject, action)) {
                    first = *at;
                    return;
                }
            }
        };
        look(&self.anybody);
        if !self.by_client.is_empty() {
            look(self.by_client.get(subject.client_id).map_or(&[], Vec::as_slice));
        }
        if let Some(username) = subject.username.filter(|_| !self.by_user.is_empty()) {
            look(self.by_user.get(username).map_or(&[], Vec::as_slice));
        }
        if !self.by_network.is_empty() {
            let bits = bits_of(subject.address);
            for (length, networks) in &self.by_network {
                look(networks.get(&masked(bits, *length)).map_or(&[], Vec::as_slice));
            }
        }
        (first < limit).then_some(first)
    }
}

/// A rule with several patterns or names may come twice in a row.
fn push(numbers: &mut Vec<usize>, at: usize) {
    if numbers.last() != Some(&at) {
        numbers.push(at);
    }
}

/// The prefix of a network, with IPv4 as mapped IPv6.
fn prefix(network: &IpNet) -> (u8, u128) {
    let length = match network {
        IpNet::V4(network) => network.prefix_len() + 96,
        IpNet::V6(network) => network.prefix_len(),
    };
    (length, masked(bits_of(network.network()), length))
}

fn bits_of(address: IpAddr) -> u128 {
    let v6: Ipv6Addr = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.to_bits()
}

fn masked(bits: u128, length: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    bits & mask
}
