"""The store in a PostgreSQL database, which many nodes share. It needs the extra `postgres`."""
