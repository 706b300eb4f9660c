"""The demonstration that `proxyproto-rs demo` shows."""
