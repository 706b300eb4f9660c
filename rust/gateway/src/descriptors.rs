//! The number of connections that the descriptors of this process allow.

use rustix::process::{Resource, getrlimit};

/// The largest number of connections, of which each takes so many descriptors.
///
/// Without this limit, silent strangers could take all of the usual 1,024 descriptors. Then no client would reach a server,
/// and no check of a server would work.
pub(crate) fn most_connections(each: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    of_limit(limit, each)
}

fn of_limit(limit: Option<usize>, each: usize) -> usize {
    limit.map_or(usize::MAX, |limit| (limit.saturating_sub(SPARE) / each).max(1))
}

/// Descriptors for the workers, the checks, and the rest of the process.
const SPARE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn the_descriptors_are_for_connections_and_a_few_for_the_rest() {
        let table = [
            (None, 2, usize::MAX),
            (Some(0), 2, 1),
            (Some(1024), 2, 480),
            (Some(1024), 3, 320),
            (Some(20_000), 2, 9968),
        ];
        for (limit, each, expected) in table {
            assert_eq!(of_limit(limit, each), expected);
        }
    }

    #[test]
    fn a_broker_in_this_process_has_the_other_end() {
        let mut options = Options::default();
        assert_eq!(options.descriptors_of_a_client(), 2);
        options.in_process = true;
        assert_eq!(options.descriptors_of_a_client(), 3);
        options.in_process = false;
        options.upstream.secret = Some(b"secret"[..].into());
        assert_eq!(options.descriptors_of_a_client(), 3);
    }
}
