"""What is known of clients, and the words for it. It knows no other room."""
