//! The number of connections that the descriptors of this process allow.

use rustix::process::{Resource, getrlimit};

/// The largest number of connections. Each takes one descriptor for the client and one for the server.
///
/// Without this limit, silent strangers could take all of the usual 1,024 descriptors. Then no client would reach a server,
/// and no check of a server would work.
pub(crate) fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    of_limit(limit)
}

fn of_limit(limit: Option<usize>) -> usize {
    limit.map_or(usize::MAX, |limit| (limit.saturating_sub(SPARE) / 2).max(1))
}

/// Descriptors for the workers, the checks, and the rest of the process.
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
