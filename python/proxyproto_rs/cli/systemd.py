"""Tells systemd what the service does (sd_notify(3)): started, reloading, stopping."""

from __future__ import annotations

import logging
import os
import socket

_ADDRESS = "NOTIFY_SOCKET"

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")


def tell(*states: str) -> None:
    """Send assignments such as `READY=1`. Nothing happens unless systemd waits for them (`Type=notify`)."""
    address = os.environ.get(_ADDRESS)
    if not address:
        return
    if address[0] == "@":  # an abstract name
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            # A full queue must not hold the broker up.
            sock.setblocking(False)
            sock.sendto("\n".join(states).encode(), address)
    except OSError as wrong:
        logger.warning("systemd cannot be told %s: %s", states[0], wrong.strerror or wrong)
