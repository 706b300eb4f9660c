//! What was denied, until somebody asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::acl::Action;

/// A client was denied a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Denial {
    /// The client id.
    pub client_id: String,
    /// The real client's address and port.
    pub client: Option<SocketAddr>,
    /// What it wanted.
    pub action: Action,
    /// The topic, or the filter; of a longer one its first 256 bytes.
    pub topic: String,
}

/// What was denied since the last call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Denials {
    /// How often each was denied, in the order in which they first were.
    pub counted: Vec<(Denial, u64)>,
    /// How many more messages were denied of which no more is known, because too many different ones waited here.
    pub more_publishes: u64,
    /// The same of subscriptions.
    pub more_subscribes: u64,
}

/// Denials that wait: at most [`Waiting::MOST`] different ones.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Each with its place in the order in which they were first denied, and how often it was.
    counted: HashMap<Denial, (usize, u64)>,
    more_publishes: u64,
    more_subscribes: u64,
}

impl Waiting {
    const MOST: usize = 1024;
    const LONGEST: usize = 256;

    pub(crate) fn add(&self, client_id: &str, client: Option<SocketAddr>, action: Action, topic: &str) {
        let mut end = topic.len().min(Self::LONGEST);
        while !topic.is_char_boundary(end) {
            end -= 1;
        }
        let topic = topic.get(..end).unwrap_or_default().to_owned();
        let denial = Denial { client_id: client_id.to_owned(), client, action, topic };
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = table.counted.len();
        match table.counted.get_mut(&denial) {
            Some((_, count)) => *count += 1,
            None if place >= Self::MOST && action == Action::Publish => table.more_publishes += 1,
            None if place >= Self::MOST => table.more_subscribes += 1,
            None => {
                table.counted.insert(denial, (place, 1));
            }
        }
    }

    pub(crate) fn take(&self) -> Denials {
        let table = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counted: Vec<_> = table.counted.into_iter().collect();
        counted.sort_unstable_by_key(|(_, (place, _))| *place);
        Denials {
            counted: counted.into_iter().map(|(denial, (_, count))| (denial, count)).collect(),
            more_publishes: table.more_publishes,
            more_subscribes: table.more_subscribes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_counted_and_too_many_are_not_kept() {
        let waiting = Waiting::default();
        for at in 0..Waiting::MOST + 3 {
            waiting.add("c", None, Action::Publish, &format!("t/{at}"));
        }
        waiting.add("c", None, Action::Publish, "t/0");
        waiting.add("c", None, Action::Subscribe, "t/0");
        let taken = waiting.take();
        assert_eq!(taken.counted.len(), Waiting::MOST);
        assert_eq!((taken.more_publishes, taken.more_subscribes), (3, 1));
        assert_eq!(taken.counted.iter().map(|(_, count)| count).sum::<u64>(), Waiting::MOST as u64 + 1);
        assert_eq!(waiting.take(), Denials::default());
    }

    #[test]
    fn a_long_topic_is_cut_between_characters() {
        let waiting = Waiting::default();
        waiting.add("c", None, Action::Publish, &"é".repeat(1000));
        waiting.add("c", None, Action::Publish, &format!("a{}", "é".repeat(1000)));
        let mut lengths: Vec<_> =
            waiting.take().counted.iter().map(|(denial, _)| denial.topic.len()).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [255, 256]);
    }
}
