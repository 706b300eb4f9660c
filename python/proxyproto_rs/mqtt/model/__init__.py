"""What is known of clients, and the words for it. Nothing here does anything."""
