//! What the broker takes for a topic.

/// How many levels a topic or a filter may have. rmqtt walks its trees of topics by recursion: a retained message with as many
/// levels as a packet can hold would overflow the stack, and end the process.
pub(crate) const MAX_LEVELS: usize = 128;

/// Whether `topic` has more levels than are taken.
pub(crate) fn is_too_deep(topic: &str) -> bool {
    topic.bytes().filter(|byte| *byte == b'/').count() >= MAX_LEVELS
}

/// Whether wildcards in the first level pass over it (MQTT 5, section 4.7.2).
pub(crate) fn is_of_the_server(topic: &str) -> bool {
    topic.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted() {
        assert!(!is_too_deep(&"a/".repeat(MAX_LEVELS - 1)));
        assert!(is_too_deep(&"a/".repeat(MAX_LEVELS)));
    }
}
