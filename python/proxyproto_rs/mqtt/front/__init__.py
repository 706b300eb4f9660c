"""The connections: TLS, WebSocket, CONNECT, packets."""
