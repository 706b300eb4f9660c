"""What the broker knows now: sessions, refused clients, blocks."""
