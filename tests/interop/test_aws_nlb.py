"""Headers captured from AWS Network Load Balancers, as docs/howto/aws-nlb.md describes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from interop.pages import read
from peers import Peer

if TYPE_CHECKING:
    from proxyproto_rs import Listener

VECTORS = Path(__file__).parents[1] / "vectors" / "vectors.json"


def capture(name: str) -> bytes:
    (line,) = [vector["hex"] for vector in json.loads(VECTORS.read_text()) if vector["name"] == name]
    return bytes.fromhex(line)


def test_client_and_its_vpc_endpoint_are_seen(listener: Listener) -> None:
    with Peer(listener.getsockname(), capture("rw-aws-nlb-vpce-example")):
        conn, address = listener.accept()
    with conn:
        assert address == ("172.31.7.113", 51442)
        assert conn.header is not None
        assert f'"{conn.header.aws_vpc_endpoint_id}"' in read("howto/aws-nlb.md")


def test_health_check_is_the_balancers_own(listener: Listener) -> None:
    with Peer(listener.getsockname(), capture("rw-aws-nlb-healthcheck-local-inet-tlvs")) as peer:
        conn, address = listener.accept()
        with conn:
            assert address == peer.sock.getsockname()
    assert listener.stats()["local"] == 1
