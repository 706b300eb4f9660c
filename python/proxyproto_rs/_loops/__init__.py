"""A Listener on event loops: its servers, its connections as transports and streams."""
