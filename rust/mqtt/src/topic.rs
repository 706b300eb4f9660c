//! What topics are made of.

/// Whether a topic has a wildcard, which only filters may have (MQTT 3.1.1, section 4.7.1).
pub(crate) fn has_wildcard(topic: &[u8]) -> bool {
    topic.iter().any(|byte| matches!(byte, b'+' | b'#'))
}
