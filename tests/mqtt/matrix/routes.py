"""The ways to a broker: four kinds of listener, each reached directly and through HAProxy in three ways."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interop.proxies import running_haproxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from interop.certificates import Certificates
    from mqtt.peers import Broker

KINDS = ("tcp", "ssl", "ws", "wss")
DIRECT = "direct"
ENDS_TLS = "v2-ssl-cn"
"""HAProxy ends the client's TLS. To ssl and wss listeners it then speaks TLS of its own."""
PROXIES = {"v1": "send-proxy", "v2": "send-proxy-v2", ENDS_TLS: "send-proxy-v2-ssl-cn"}
ROUTES = [(kind, by) for kind in KINDS for by in (DIRECT, *PROXIES)]


@dataclass(frozen=True)
class Route:
    """How a client gets to a listener of this kind."""

    kind: str
    by: str
    port: int

    @property
    def tls_here(self) -> bool:
        """Whether the listener has TLS."""
        return self.kind in ("ssl", "wss")

    @property
    def client_speaks_tls(self) -> bool:
        return self.tls_here or self.by == ENDS_TLS

    @property
    def websocket(self) -> bool:
        return self.kind in ("ws", "wss")

    @property
    def listener(self) -> str:
        """The name of the listener."""
        return f"{self.kind}-{DIRECT}" if self.by == DIRECT else self.kind


def listeners(certificates: Certificates) -> dict[str, dict[str, Any]]:
    """The listeners of all routes: of each kind one that takes headers, and one that does not."""
    pair = str(certificates.server)
    found = {}
    for kind in KINDS:
        tls = {"tls": {"certfile": pair, "keyfile": pair}} if kind in ("ssl", "wss") else {}
        found[kind] = {"type": kind, **tls}
        found[f"{kind}-{DIRECT}"] = {"type": kind, "proxy_protocol": "off", **tls}
    return found


@contextlib.contextmanager
def routes(
    broker: Broker, certificates: Certificates, directory: Path
) -> Iterator[dict[tuple[str, str], Route]]:
    """Run HAProxy in front of a broker's listeners, and give all routes."""
    found = {(kind, DIRECT): Route(kind, DIRECT, broker.address(f"{kind}-{DIRECT}")[1]) for kind in KINDS}
    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        fronts = []
        for kind, by in ROUTES:
            if by == DIRECT:
                continue
            front = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            fronts.append(front)
            host, port = broker.address(kind)
            bind = server = ""
            if by == ENDS_TLS:
                bind = f"ssl crt {certificates.server} ca-file {certificates.authority} verify optional"
                server = "ssl verify none" if kind in ("ssl", "wss") else ""
            lines += [
                f"listen {kind}-{by}",
                "    mode tcp",
                f"    bind fd@{front.fileno()} {bind}",
                f"    server broker {host}:{port} {PROXIES[by]} {server}",
            ]
            found[kind, by] = Route(kind, by, front.getsockname()[1])
        stack.enter_context(running_haproxy("\n".join(lines) + "\n", directory, *fronts))
        yield found
