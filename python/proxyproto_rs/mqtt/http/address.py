"""Everything of one address: its sessions, its refusals, the blocks that cover it, and what happened."""

from __future__ import annotations

import json
from typing import Any

from ..model.networks import parse_address
from ..model.paging import to_json
from ..model.records import UnauthorizedQuery
from ..model.session_query import SessionQuery
from ..telling.analytics import grouped
from ..telling.audit import encoded
from . import sessions, unauthorized
from .answers import Address
from .call import Call, Route
from .errors import ApiError
from .queries import AddressParameters

_MOST = 100


async def show(call: Call) -> Any:
    """Show everything of an address."""
    broker, parsed = call.broker, parse_address(call.parameters.ip_address)
    if parsed is None:
        raise ApiError(400, "ipAddress must be an IP address")
    text = str(parsed)
    exactly = f"{text}/{parsed.max_prefixlen}"
    events = broker.feed.of_address(text, _MOST)
    return {
        "ipAddress": text,
        "network": grouped(text, 24),
        "sessions": await sessions.page_of(broker, SessionQuery(client_ip_address=exactly, page_size=_MOST)),
        "refused": await unauthorized.page_of(broker, UnauthorizedQuery(ip_address=exactly, page_size=_MOST)),
        "blocks": [to_json(block) for block in broker.blocked.covering(text)],
        "blocklist": broker.blocklists.naming(text),
        "events": [json.loads(encoded(line.copy())) for line in events],
    }


ROUTES = (Route("GET", "/api/address", show, Address, "Everything of one address", AddressParameters),)
