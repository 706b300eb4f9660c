"""The state of the broker: health, counters, listeners, history, configuration."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict
from typing import Any

from proxyproto_rs import Refusal, __version__
from proxyproto_rs._core import _looks_like
from proxyproto_rs.explanations import LOGINS, REFUSED

from ..config.report import masked
from ..model.connection import address_text
from ..model.paging import camel_case, to_json
from ..store.nodes import SessionCounts
from ..store.protocol import StoreError
from ..telling.logs import endpoint
from .answers import (
    Config,
    Health,
    Listeners,
    MinuteRow,
    Node,
    Overview,
    Ready,
    TopRow,
)
from .broker import Broker
from .call import Call, Result, Route
from .queries import TopParameters

_LATE = 5.0  # seconds
_PATIENCE = 1.0  # seconds with the store; after that the page shows what this node knows
# A block of the broker refuses in the acceptor too. Its text is that of logins.
_REMEDIES = {code: text.remedy for code, text in [*LOGINS.items(), *REFUSED.items()]}


async def health(call: Call) -> Any:
    """Say whether the event loop runs."""
    lag = call.broker.lag()
    late = lag >= _LATE
    body = {"status": "late" if late else "ok", "lagSeconds": round(lag, 3)}
    return Result(503, body) if late else body


async def ready(call: Call) -> Any:
    """Say what keeps the broker from serving clients."""
    missing = list(await call.broker.not_ready())
    body = {"status": "not ready" if missing else "ready", "notReady": missing}
    return Result(503, body) if missing else body


async def overview(call: Call) -> Any:
    """Return the counters of the first view: sessions, rows and blocks of all nodes, connections and bytes of this one."""
    broker = call.broker
    counts = await _of_all_nodes(broker)
    sessions = counts or SessionCounts(broker.sessions.connected, len(broker.sessions))
    metrics, totals = broker.sources.metrics, broker.sources.totals()
    transferred = broker.sources.transferred().values()
    accepted = sum(count for (_, result), count in metrics.connects.items() if result == "accepted")
    return {
        "nodeId": broker.node_id,
        "version": __version__,
        "startedAt": broker.started_at,
        "now": int(time.time() * 1000),
        "access": call.access,
        "connected": sessions.connected,
        "sessions": sessions.rows,
        "countsAllNodes": counts is not None,
        "accepted": accepted,
        "refused": sum(metrics.connects.values())
        - accepted
        + sum(s.refused for s in broker.stats().values()),
        "bytesIn": sum(bytes_in for bytes_in, _ in transferred),
        "bytesOut": sum(bytes_out for _, bytes_out in transferred),
        "unauthorizedRows": totals["unauthorized_clients"],
        "activeBlocks": sum(broker.sources.blocked().values()),
        "eventListeners": len(broker.feed),
        "dropped": {
            "unauthorized": totals["unauthorized_dropped"],
            "audit": totals["audit_dropped"],
            "events": broker.feed.dropped,
        },
        "notReady": list(await broker.not_ready()),
    }


async def _of_all_nodes(broker: Broker) -> SessionCounts | None:
    """Count the sessions and the unauthorized clients of all nodes; None if the store does not answer."""
    with contextlib.suppress(StoreError, asyncio.TimeoutError):
        return await asyncio.wait_for(_counted(broker), _PATIENCE)
    return None


async def _counted(broker: Broker) -> SessionCounts:
    await broker.unauthorized.count()  # it is in `totals` then
    return await broker.sessions.count()


async def listeners(call: Call) -> Any:
    """List the open ports with their last refusals, and the servers behind."""
    broker = call.broker
    stats, addresses = broker.stats(), broker.addresses()
    ports = []
    for name, config in broker.config.listeners.items():
        counts, trusted = stats[name], config.proxy.trusted
        ports.append(
            {
                "name": name,
                "type": config.type,
                "bind": str(config.bind),
                "address": addresses[name],
                "proxyProtocol": config.proxy_protocol,
                "trusted": None if trusted is None else [str(network) for network in trusted],
                "untrusted": config.proxy.untrusted,
                "accepted": counts.accepted,
                "refused": counts.refused,
                "pending": counts.pending,
                "ready": counts.ready,
                "open": counts.open,
                "outcomes": dict(counts),
                "lastRefusals": [_refusal(*one) for one in broker.last_refusals.of(name)],
            }
        )
    servers = [
        {camel_case(key): value for key, value in dict(server).items()} for server in broker.sources.servers()
    ]
    return {"listeners": ports, "upstreams": servers}


async def top(call: Call) -> Any:
    """Rank addresses or networks."""
    parameters = call.parameters
    ranked = await call.broker.top(parameters.by, int(parameters.prefix), parameters.limit)
    return [to_json(entry) for entry in ranked]


async def history(call: Call) -> Any:
    """Return the last 24 hours, minute by minute."""
    return [asdict(minute) for minute in await call.broker.history()]


async def config(call: Call) -> Any:
    """Return every value in force, with secrets masked."""
    return masked(call.broker.config)


async def nodes(call: Call) -> Any:
    """List the brokers that share the store."""
    return [
        {
            "nodeId": node.node_id,
            "sessions": node.connected,
            "startedAt": node.started_at,
            "lastSeen": node.seen_at,
            "isThis": node.is_this,
        }
        for node in await call.broker.nodes()
    ]


def _refusal(reason: str, refusal: Refusal) -> dict[str, Any]:
    client = refusal.client
    return {
        "time": int(refusal.time * 1000),
        "reason": reason,
        "peer": endpoint(address_text(refusal.peer)),
        "client": None if client is None else endpoint(address_text(client)),
        "count": refusal.count,
        "detail": refusal.detail,
        "remedy": _REMEDIES[reason],
        "firstBytes": refusal.first_bytes.hex(" "),
        "looksLike": _looks_like(refusal.first_bytes),
    }


ROUTES = (
    Route("GET", "/healthz", health, Health, "Whether the event loop runs", needs="nothing", statuses=(503,)),
    Route(
        "GET",
        "/readyz",
        ready,
        Ready,
        "Whether clients are served, and if not, why",
        needs="nothing",
        statuses=(503,),
    ),
    Route("GET", "/api/overview", overview, Overview, "The counters of the first view"),
    Route(
        "GET",
        "/api/listeners",
        listeners,
        Listeners,
        "The open ports with their last refusals, and the servers behind",
    ),
    Route("GET", "/api/top", top, list[TopRow], "The busiest real addresses", TopParameters),
    Route("GET", "/api/history", history, list[MinuteRow], "The last 24 hours, minute by minute"),
    Route("GET", "/api/config", config, Config, "Every value in force, with secrets masked"),
    Route("GET", "/api/nodes", nodes, list[Node], "The brokers that share the store"),
)
