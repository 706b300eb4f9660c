"""An MQTT broker behind proxies: sessions, refusals, blocks and logs carry the client's real address."""
