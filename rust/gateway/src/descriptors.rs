//! How many connections the descriptors of this process are enough for.

use rustix::process::{Resource, getrlimit};

/// How many connections there may be: each takes a descriptor for the client and one for the server.
///
/// Without this, strangers who say nothing take all of the usual 1,024: then no client reaches a server, and the servers
/// cannot be checked.
pub(crate) fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    of_limit(limit)
}

fn of_limit(limit: Option<usize>) -> usize {
    limit.map_or(usize::MAX, |limit| (limit.saturating_sub(SPARE) / 2).max(1))
}

/// For the workers, the checks, and what else the process does.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_takes_two() {
        let table = [(None, usize::MAX), (Some(0), 1), (Some(1024), 480), (Some(20_000), 9968)];
        for (limit, expected) in table {
            assert_eq!(of_limit(limit), expected);
        }
    }
}
