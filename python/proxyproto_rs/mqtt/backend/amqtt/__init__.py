"""amqtt as the backend."""
