"""The TLS of a server, and what asyncio lets one say about it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tls:
    """A context, and the two timeouts in seconds; None where the loop's default holds."""

    context: ssl.SSLContext
    handshake_timeout: float | None
    shutdown_timeout: float | None

    @classmethod
    def of(
        cls,
        context: ssl.SSLContext | None,
        handshake_timeout: float | None = None,
        shutdown_timeout: float | None = None,
    ) -> Tls | None:
        """Check the three as asyncio does; None is plain text."""
        if context is None:
            if handshake_timeout is not None:
                raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
            if shutdown_timeout is not None:
                raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
            return None
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"ssl argument must be an SSLContext or None, not {type(context).__name__}")
        for name, timeout in (("handshake", handshake_timeout), ("shutdown", shutdown_timeout)):
            if timeout is not None and timeout <= 0:
                raise ValueError(f"ssl_{name}_timeout should be a positive number, got {timeout}")
        return cls(context, handshake_timeout, shutdown_timeout)

    def timeouts(self) -> dict[str, Any]:
        """Return what was given, as keywords: Python 3.10 does not know the second."""
        given = {
            "ssl_handshake_timeout": self.handshake_timeout,
            "ssl_shutdown_timeout": self.shutdown_timeout,
        }
        return {name: timeout for name, timeout in given.items() if timeout is not None}
