"""What operators' tools and browsers reach: health, metrics, the API, and the page."""
