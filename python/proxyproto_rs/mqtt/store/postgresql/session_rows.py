"""Converts between a session's record and its row in PostgreSQL."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Sequence
from typing import Any

from proxyproto_rs import Header, InvalidHeader, parse

from ...model.connection import Connection, TlsInfo
from ...model.networks import parse_address
from ...model.session_record import SessionRecord, StoredTraffic
from .schema import text

NO_ADDRESS = "0.0.0.0/0"
"""Stands for a client without an address, such as one on a UNIX socket. It sorts before all addresses."""

_HEADER_SIZE = 0xFFFF + 16

COLUMNS = (
    "client_id", "owner", "node_id", "session_id", "connected", "username", "client_ip_adr", "client_port",
    "address", "listener", "proxy_version", "clean_start", "keep_alive_seconds", "session_expiry_interval",
    "connected_at", "login_seconds", "disconnected_at", "disconnect_reason", "detail", "mqtt_version", "is_kept",
    "upstream", "upstream_connect_seconds", "subscriptions_count", "last_seen", "bytes_in", "bytes_out",
    "packets_in", "packets_out", "proxy_ip_adr", "proxy_port", "destination_ip_adr", "destination_port",
    "address_source", "header", "tls", "forgotten_at",
)  # fmt: skip
SELECT = f"SELECT {', '.join(COLUMNS)} FROM proxyproto_rs.client_session"  # noqa: S608


def row_of(record: SessionRecord, owner: uuid.UUID, ahead: int) -> tuple[Any, ...]:
    """Return the record as a row. `ahead` milliseconds lie between this machine's clock and the database's."""
    connection, traffic = record.connection, record.traffic
    proxy = connection.proxy or (None, None)
    host = connection.client[0]
    return (
        text(record.client_id),
        owner,
        text(record.node_id),
        text(connection.session_id),
        record.connected,
        _text(record.username),
        text(host),
        connection.client[1],
        NO_ADDRESS if parse_address(host) is None else host,
        text(connection.listener),
        connection.proxy_version,
        record.clean_start,
        record.keep_alive_seconds,
        record.session_expiry_interval,
        record.connected_at,
        record.login_seconds,
        record.disconnected_at,
        record.disconnect_reason,
        text(record.detail),
        record.mqtt_version,
        record.is_kept,
        _text(record.upstream),
        record.upstream_connect_seconds,
        record.subscriptions_count,
        record.last_seen + ahead,
        traffic.bytes_in,
        traffic.bytes_out,
        traffic.packets_in,
        traffic.packets_out,
        _text(proxy[0]),
        proxy[1],
        text(connection.destination[0]),
        connection.destination[1],
        connection.address_source,
        None if connection.header is None else connection.header.encode(),
        None if connection.tls is None else text(json.dumps(dataclasses.asdict(connection.tls))),
        record.forgotten_at,
    )


def record_of(row: Sequence[Any]) -> SessionRecord:
    """Return a row of SELECT as a record."""
    told = dict(zip(COLUMNS, row, strict=True))
    return SessionRecord(
        client_id=told["client_id"],
        username=told["username"],
        connection=Connection(
            session_id=told["session_id"],
            listener=told["listener"],
            client=(told["client_ip_adr"], told["client_port"]),
            proxy=None if told["proxy_ip_adr"] is None else (told["proxy_ip_adr"], told["proxy_port"]),
            destination=(told["destination_ip_adr"], told["destination_port"]),
            header=_header(told["header"]),
            address_source=told["address_source"],
            tls=None if told["tls"] is None else TlsInfo(**json.loads(told["tls"])),
        ),
        traffic=StoredTraffic(
            bytes_in=told["bytes_in"],
            bytes_out=told["bytes_out"],
            packets_in=told["packets_in"],
            packets_out=told["packets_out"],
            last_seen=told["last_seen"] / 1000,
        ),
        node_id=told["node_id"],
        clean_start=told["clean_start"],
        keep_alive_seconds=told["keep_alive_seconds"],
        session_expiry_interval=told["session_expiry_interval"],
        connected=told["connected"],
        connected_at=told["connected_at"],
        login_seconds=told["login_seconds"],
        disconnected_at=told["disconnected_at"],
        disconnect_reason=told["disconnect_reason"],
        detail=told["detail"],
        mqtt_version=told["mqtt_version"],
        is_kept=told["is_kept"],
        upstream=told["upstream"],
        upstream_connect_seconds=told["upstream_connect_seconds"],
        subscriptions_count=told["subscriptions_count"],
    )


def _text(value: str | None) -> str | None:
    return None if value is None else text(value)


def _header(raw: bytes | None) -> Header | None:
    if raw is not None:
        with contextlib.suppress(InvalidHeader):
            return parse(raw, max_header_size=_HEADER_SIZE, allow_mixed_families=True)[0]
    return None
