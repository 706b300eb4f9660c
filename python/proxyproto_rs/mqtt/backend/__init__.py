"""What is behind the gate: it keeps the sessions and carries the packets."""
