"""`proxyproto-rs demo`: shows what a broker behind a proxy knows about its clients, with and without PROXY headers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from typing import TYPE_CHECKING, Literal

from .table import render

if TYPE_CHECKING:
    import argparse

    from proxyproto_rs.mqtt.demo.proxies import Proxy
    from proxyproto_rs.mqtt.demo.scene import Tables

HELP = "show an MQTT broker behind a proxy, all in this process; status 0 if its tables are right"
EXTRA = "mqtt"
EXAMPLES = """\
proxyproto-rs demo
proxyproto-rs demo --haproxy
proxyproto-rs demo --serve --seconds 60
"""

_TROUBLE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    parser.add_argument("--haproxy", action="store_true", help="put a real HAProxy in between")
    parser.add_argument(
        "--upstream",
        choices=["mosquitto"],
        help="put this server of the machine behind, in place of the embedded broker",
    )
    parser.add_argument(
        "--serve", action="store_true", help="then keep a broker and its proxy running for your own clients"
    )
    parser.add_argument(
        "--seconds", type=float, help="with --serve: end after this time; by default run until interrupted"
    )


def run(arguments: argparse.Namespace) -> int:
    """Show the demo's tables; return 0 if they are right."""
    from proxyproto_rs.mqtt.demo.proxies import Forwarder, HAProxy
    from proxyproto_rs.mqtt.demo.server import require_mosquitto

    # The tables say everything. Log lines would stand between them.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        proxy: Proxy = HAProxy() if arguments.haproxy else Forwarder()
        if arguments.upstream is not None:
            require_mosquitto()
    except FileNotFoundError as missing:
        sys.stderr.write(f"proxyproto-rs demo: {missing}\n")
        return _TROUBLE
    status = asyncio.run(_show(proxy, arguments.upstream))
    if arguments.serve and not status:
        again = HAProxy() if arguments.haproxy else Forwarder()
        asyncio.run(_serve(again, arguments.seconds, arguments.upstream))
    return status


async def _show(proxy: Proxy, upstream: Literal["mosquitto"] | None) -> int:
    from proxyproto_rs.mqtt.demo import scene
    from proxyproto_rs.mqtt.demo.proxies import Forwarder

    with_headers = await scene.run(proxy, proxy_protocol="required", upstream=upstream)
    without = await scene.run(Forwarder(headers=False), proxy_protocol="off", upstream=upstream)
    _print(with_headers)
    print("Refused, because it came without a header:\n  " + str(with_headers.refused_line) + "\n")
    print("The same clients where the proxy sends no headers and the broker expects none:\n")
    _print(without)
    wrong = scene.problems(with_headers, without)
    for problem in wrong:
        print(f"WRONG: {problem}")
    if not wrong:
        print("All as it must be: the broker knows its clients' own addresses.")
    return 1 if wrong else 0


def _print(tables: Tables) -> None:
    print(
        render(
            "Sessions",
            ("client id", "real address", "proxy", "header", "MQTT"),
            map(_with_version, tables.sessions),
        )
    )
    print(
        render(
            "Unauthorized clients", ("client id", "real address", "reason", "attempts"), tables.unauthorized
        )
    )
    print(render("Blocked clients", ("type", "value", "hits"), tables.blocked))


def _with_version(row: tuple[object, ...]) -> tuple[object, ...]:
    return (*row[:3], f"v{row[3]}" if row[3] else None, row[4])


async def _serve(proxy: Proxy, seconds: float | None, upstream: Literal["mosquitto"] | None) -> None:
    from proxyproto_rs.mqtt.demo import scene
    from proxyproto_rs.mqtt.demo.clients import CLIENTS

    token = secrets.token_urlsafe(16)
    serving = scene.serving(proxy, proxy_protocol="required", upstream=upstream, token=token)
    async with serving as (service, ports):
        print(f"Serving; user demo, password {scene.PASSWORD}. Each port is a proxy for one client address:")
        for client in CLIENTS:
            print(f"  127.0.0.1:{ports[client.client_id]}  as {client.address[0]}")
        assert service.http is not None
        print(f"The operator's page is {service.http.url} and its token {token}")
        sys.stdout.flush()
        await asyncio.sleep(seconds if seconds is not None else float("inf"))
