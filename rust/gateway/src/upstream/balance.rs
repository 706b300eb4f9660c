//! Chooses the server of the next client. No I/O.

use crate::options::Balance;

/// The facts about a server that the choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The server is up, has room, and has not been tried for this client.
    pub(crate) is_eligible: bool,
    pub(crate) connections: usize,
    /// A number of the address that never changes.
    pub(crate) address_hash: u64,
}

/// The index of the server that gets the client; `None` if none is eligible. `turn` grows with each choice.
pub(crate) fn choose(
    balance: Balance,
    candidates: &[Candidate],
    turn: usize,
    client_id: &[u8],
) -> Option<usize> {
    let count = candidates.len().max(1);
    // Where others are equal, the first behind the last choice is taken.
    let distance = |index: usize| (index + count - turn % count) % count;
    let eligible = candidates.iter().enumerate().filter(|(_, candidate)| candidate.is_eligible);
    let chosen = match balance {
        Balance::RoundRobin => eligible.min_by_key(|(index, _)| distance(*index)),
        Balance::LeastConnections => {
            eligible.min_by_key(|(index, candidate)| (candidate.connections, distance(*index)))
        }
        Balance::ClientId => {
            let id = hash(client_id);
            eligible.max_by_key(|(_, candidate)| mix(id ^ candidate.address_hash))
        }
    };
    chosen.map(|(index, _)| index)
}

/// A hash that is the same in every process and version, so that several gateways agree (FNV-1a).
///
/// Clients can choose ids that all go to one server. The hash does not prevent this, because such clients could also
/// reconnect until they reach that server.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Spreads a difference in any bit over all bits (the finalizer of splitmix64).
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(connections: &[usize]) -> Vec<Candidate> {
        let server = |(index, &connections): (usize, &usize)| Candidate {
            is_eligible: true,
            connections,
            address_hash: hash(format!("10.0.0.{index}:1883").as_bytes()),
        };
        connections.iter().enumerate().map(server).collect()
    }

    #[test]
    fn each_balance_chooses_among_the_eligible() {
        use Balance::{LeastConnections, RoundRobin};
        type Row = (Balance, &'static [usize], usize, &'static [usize], Option<usize>);
        let table: [Row; 11] = [
            (RoundRobin, &[0, 0, 0], 0, &[], Some(0)),
            (RoundRobin, &[0, 0, 0], 1, &[], Some(1)),
            (RoundRobin, &[9, 9, 0], 3, &[], Some(0)),
            (RoundRobin, &[0, 0, 0], 1, &[1], Some(2)),
            (RoundRobin, &[0, 0, 0], 2, &[2], Some(0)),
            (LeastConnections, &[3, 2, 2], 0, &[], Some(1)),
            (LeastConnections, &[3, 2, 2], 2, &[], Some(2)),
            (LeastConnections, &[3, 2, 2], 0, &[1, 2], Some(0)),
            (LeastConnections, &[0, 0, 0], 4, &[], Some(1)),
            (RoundRobin, &[0, 0], 5, &[0, 1], None),
            (LeastConnections, &[], 0, &[], None),
        ];
        for (balance, connections, turn, left_out, expected) in table {
            let mut candidates = servers(connections);
            for index in left_out {
                candidates[*index].is_eligible = false;
            }
            assert_eq!(
                choose(balance, &candidates, turn, b""),
                expected,
                "{balance:?} {connections:?} {turn}"
            );
        }
    }

    #[test]
    fn a_client_id_stays_with_its_server_and_moves_only_while_that_is_away() {
        let all = servers(&[0; 4]);
        let mut without = all.clone();
        without[2].is_eligible = false;
        let mut counts = [0; 4];
        for number in 0..4000 {
            let id = format!("device-{number}");
            let home = choose(Balance::ClientId, &all, number, id.as_bytes()).unwrap();
            let other = choose(Balance::ClientId, &without, 7, id.as_bytes()).unwrap();
            assert!(home == 2 || home == other, "{id}");
            counts[home] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(choose(Balance::ClientId, &servers(&[0; 3]), 0, b"device-1"), Some(1));
    }
}
