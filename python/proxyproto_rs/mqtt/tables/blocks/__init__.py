"""Who may not connect."""
