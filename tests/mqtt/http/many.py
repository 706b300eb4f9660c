"""Very many sessions at once, without their connections."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxyproto_rs.mqtt.model.connection import Connection
from proxyproto_rs.mqtt.model.session_record import SessionRecord

if TYPE_CHECKING:
    from proxyproto_rs.mqtt import BrokerService


@dataclass
class Traffic:
    bytes_in: int = 100
    bytes_out: int = 200
    packets_in: int = 1
    packets_out: int = 2
    last_seen: float = 0.0


def fill(service: BrokerService, number: int) -> None:
    """Enter sessions dev-0, dev-1, ... from 10.0.0.0, 10.0.0.1, ... into the registry."""
    now = int(time.time() * 1000)
    records = service.sessions._records
    for index in range(number):
        client_id = f"dev-{index}"
        address = f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"
        connection = Connection(
            session_id=str(uuid.UUID(int=index)),
            listener="tcp",
            client=(address, 40000),
            proxy=("127.0.0.1", 5),
            destination=("198.51.100.1", 1883),
            header=None,
            address_source="header",
        )
        records[client_id] = SessionRecord(
            client_id=client_id,
            username=f"user-{index % 1000}",
            connection=connection,
            traffic=Traffic(),
            node_id="test",
            clean_start=True,
            keep_alive_seconds=60,
            session_expiry_interval=0,
            connected_at=now - index,
        )
