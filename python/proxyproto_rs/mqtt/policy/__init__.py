"""Who may come in, and under which name."""
