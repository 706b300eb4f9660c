"""Topic filters (MQTT 3.1.1, section 4.7)."""

from __future__ import annotations


def matches(topic: str, topic_filter: str) -> bool:
    """Whether a filter matches a topic. A wildcard does not match a first level with $ (MQTT-4.7.2-1)."""
    if topic_filter == topic:
        return True
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):
        return False
    levels = topic.split("/")
    wanted = topic_filter.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True  # it matches the parent level too: "a/#" matches "a" (section 4.7.1.2)
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(levels) == len(wanted)
