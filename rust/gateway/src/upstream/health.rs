//! Decides whether a server is up, from the number of failures or successes in a row. No I/O.

use crate::options::Check;

/// The state of one server according to its checks. A new server is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    is_down: bool,
    /// The number of results in a row that contradict the state.
    against: u32,
}

impl Health {
    pub(crate) fn is_up(self) -> bool {
        !self.is_down
    }

    /// Counts one result. Returns whether the state has changed.
    pub(crate) fn record(&mut self, is_alive: bool, check: &Check) -> bool {
        if is_alive == self.is_up() {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let most = if is_alive { check.rise } else { check.fall };
        let changes = self.against >= most;
        if changes {
            *self = Self { is_down: !self.is_down, against: 0 };
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_and_rises_by_results_in_a_row() {
        let check = Check { fall: 3, rise: 2, ..Check::default() };
        // Each result and what is so after it: `+` alive, `-` not.
        let table = [
            ("+-+--+", "UUUUUU"),
            ("---", "UUD"),
            ("----+", "UUDDD"),
            ("---++", "UUDDU"),
            ("---+-++", "UUDDDDU"),
            ("---++--+---", "UUDDUUUUUUD"),
        ];
        for (results, states) in table {
            let mut health = Health::default();
            let mut seen = String::new();
            for result in results.chars() {
                let before = health.is_up();
                let has_changed = health.record(result == '+', &check);
                assert_eq!(has_changed, before != health.is_up());
                seen.push(if health.is_up() { 'U' } else { 'D' });
            }
            assert_eq!(seen, states, "{results}");
        }
    }
}
