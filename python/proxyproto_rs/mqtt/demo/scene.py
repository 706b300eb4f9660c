"""The demo: a broker behind a proxy, four pretended clients, and what the broker's tables say about them.

The clients' addresses are documentation addresses (RFC 5737, RFC 3849). A proxy on loopback writes them into
PROXY headers, so the demo needs nothing but 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from argon2 import PasswordHasher

from ..config import BrokerConfig
from ..model.login import Connect
from ..model.records import BlockedClient, BlockQuery, UnauthorizedQuery
from ..model.session_query import SessionQuery
from ..service import BrokerService
from ..telling.logs import endpoint
from .clients import CLIENTS
from .server import mosquitto
from .talker import Talker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..model.connection import Address
    from ..model.session_record import SessionRecord
    from .proxies import Proxy

PASSWORD = "greenhouse"  # noqa: S105 (for a broker that lives for seconds, on loopback)
TOPIC = "greenhouse/temperature"
_ANSWER = 5.0  # seconds


@dataclass(frozen=True)
class Tables:
    """What the broker knew at the end."""

    sessions: list[tuple[Any, ...]]
    """Client id, real address, proxy address, header version, MQTT version."""
    unauthorized: list[tuple[Any, ...]]
    """Client id, real address, reason, attempts."""
    blocked: list[tuple[Any, ...]]
    """Type, value, hits."""
    refused_line: str | None
    """The log line about the connection without a header."""
    received: bytes | None
    """The message from sensor-7 that display-1 received."""


async def run(
    proxy: Proxy, *, proxy_protocol: Literal["required", "off"], upstream: Literal["mosquitto"] | None = None
) -> Tables:
    """Run the demo once. Whether the broker expects headers and whether the proxy sends them are given.

    `upstream` is what stands behind: a Mosquitto, or the embedded broker.
    """
    async with serving(proxy, proxy_protocol=proxy_protocol, upstream=upstream) as (service, ports):
        return await _play(service, ports, proxy_protocol)


@contextlib.asynccontextmanager
async def serving(
    proxy: Proxy,
    *,
    proxy_protocol: Literal["required", "off"],
    upstream: Literal["mosquitto"] | None = None,
    token: str | None = None,
) -> AsyncIterator[tuple[BrokerService, dict[str, int]]]:
    """Run the broker, and the proxy with a port for each client. With a token the page is served too."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proxyproto-rs-")))
        behind = await _behind(stack, folder, upstream)
        if token is not None:
            behind["http"] = {"bind": "127.0.0.1:0", "token": token}
        service = await stack.enter_async_context(BrokerService(_config(behind, proxy_protocol)))
        # The block works in the acceptor, so the blocked client never reaches MQTT.
        await service.blocked.add(BlockedClient(type="IP_ADDRESS", value="203.0.113.9", description="demo"))
        stack.push_async_callback(proxy.close)
        yield service, await proxy.open(CLIENTS, _address(service))


async def _behind(stack: contextlib.AsyncExitStack, folder: Path, upstream: str | None) -> dict[str, Any]:
    if upstream is not None:
        server = await stack.enter_async_context(mosquitto(folder, "demo", PASSWORD))
        return {"backend": {"upstream": {"servers": [server], "proxy_protocol": "off"}}}
    users = folder / "users.txt"
    users.write_text(f"demo:{PasswordHasher().hash(PASSWORD)}\n", "ascii")
    return {"auth": [{"file": str(users)}]}


def problems(with_headers: Tables, without: Tables) -> list[str]:
    """Return what is wrong in the tables. The list is empty if the demo has worked."""
    talkers = [client for client in CLIENTS if client.fate == "talks"]
    expected_sessions = sorted(
        (client.client_id, endpoint(client.address), "127.0.0.1", client.version) for client in talkers
    )
    wrong = []
    if [row[:4] for row in with_headers.sessions] != expected_sessions:
        wrong.append(f"sessions are {with_headers.sessions}, not {expected_sessions}")
    if with_headers.received is None:
        wrong.append("the message did not arrive")
    refused = {(row[0], row[1], row[2]) for row in with_headers.unauthorized}
    expected = {
        ("guesser", "2001:db8::42", "bad-credentials"),
        ("", "203.0.113.9", "blocked"),
        ("", "127.0.0.1", "missing-header"),
    }
    if refused != expected:
        wrong.append(f"unauthorized clients are {sorted(refused)}, not {sorted(expected)}")
    if [row[:2] for row in with_headers.blocked] != [("IP_ADDRESS", "203.0.113.9")]:
        wrong.append(f"blocked clients are {with_headers.blocked}")
    if with_headers.refused_line is None or "missing-header" not in with_headers.refused_line:
        wrong.append("the connection without a header left no line in the log")
    seen = {row[1].rpartition(":")[0] for row in without.sessions} | {row[1] for row in without.unauthorized}
    if seen != {"127.0.0.1"}:
        wrong.append(f"without PROXY the addresses are {sorted(seen)}, not the proxy's alone")
    return wrong


async def _play(service: BrokerService, ports: dict[str, int], proxy_protocol: str) -> Tables:
    log = _Lines()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(log)
        received = await _talk(stack, ports)
        guesser = Connect("guesser", clean_session=True, keep_alive=60, username="demo", password=b"1234")
        await _knock(stack, ("127.0.0.1", ports["guesser"]), guesser)
        scanner = Connect(
            "scanner", clean_session=True, keep_alive=60, username="demo", password=PASSWORD.encode()
        )
        # Without a header nobody knows that this client is blocked, so it gets in.
        await _knock(stack, ("127.0.0.1", ports["scanner"]), scanner)
        if proxy_protocol == "required":
            await _knock(stack, _address(service), scanner)
        refused = 3 if proxy_protocol == "required" else 1
        return await _tables(service, refused, log, received)


async def _talk(stack: contextlib.AsyncExitStack, ports: dict[str, int]) -> bytes:
    """Let one client subscribe and another publish. Both stay connected until the stack is closed."""
    display = await _talker(stack, ports, "display-1", "5")
    await display.subscribe(TOPIC)
    await (await _talker(stack, ports, "sensor-7", "3.1.1")).publish(TOPIC, b"21.5")
    return await display.receive()


async def _talker(
    stack: contextlib.AsyncExitStack, ports: dict[str, int], client_id: str, version: Literal["3.1.1", "5"]
) -> Talker:
    talker = await Talker.connect(ports[client_id], client_id, "demo", PASSWORD, version)
    stack.push_async_callback(talker.close)
    return talker


async def _knock(stack: contextlib.AsyncExitStack, address: Address, connect: Connect) -> None:
    """Send a CONNECT, and wait for a CONNACK or the end of the connection."""
    reader, writer = await asyncio.open_connection(*address)
    stack.push_async_callback(_hang_up, writer)
    writer.write(connect.encode())
    with contextlib.suppress(OSError):  # a refused connection is reset if its bytes were not read
        await asyncio.wait_for(reader.read(4), _ANSWER)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _tables(service: BrokerService, refused: int, log: _Lines, received: bytes | None) -> Tables:
    query = UnauthorizedQuery(sort_property="ip_address", sort_order="ASC")
    unauthorized = await service.unauthorized.find(query)
    for _ in range(50):  # the acceptor reports refusals within 100 ms
        if unauthorized.total_elements >= refused:
            break
        await asyncio.sleep(0.1)
        unauthorized = await service.unauthorized.find(query)
    sessions = await service.sessions.find(SessionQuery(sort_property="client_id", sort_order="ASC"))
    blocked = await service.blocked.find(BlockQuery())
    return Tables(
        sessions=[_session_row(record) for record in sessions.data],
        unauthorized=[
            (row.client_id, row.ip_address, row.reason_code, row.attempts) for row in unauthorized.data
        ],
        blocked=[(block.type, block.value, block.hits) for block in blocked.data],
        refused_line=next((line for line in log.lines if "missing-header" in line), None),
        received=received,
    )


class _Lines(logging.Handler):
    """Keeps the lines about connections that were refused before MQTT."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._logger = logging.getLogger("proxyproto_rs.listener")

    def __enter__(self) -> _Lines:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name} {record.getMessage()}")


def _session_row(record: SessionRecord) -> tuple[Any, ...]:
    connection = record.connection
    proxy = None if connection.proxy is None else connection.proxy[0]
    version = record.mqtt_version.removeprefix("MQTT_").replace("_", ".")
    return (record.client_id, endpoint(connection.client), proxy, connection.proxy_version, version)


def _config(behind: dict[str, Any], proxy_protocol: str) -> BrokerConfig:
    return BrokerConfig.model_validate(
        {
            "node_id": "demo",
            "listeners": {
                "tcp": {
                    "bind": "127.0.0.1:0",
                    "proxy_protocol": proxy_protocol,
                    "proxy": {"trusted": ["127.0.0.1"]},
                }
            },
            "store": "sqlite::memory:",
            **behind,
        }
    )


def _address(service: BrokerService) -> Address:
    listener = service.listening["tcp"].listener
    assert listener is not None
    host, port = listener.getsockname()[:2]
    return (host, port)
