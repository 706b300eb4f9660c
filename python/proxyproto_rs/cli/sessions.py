"""`proxyproto-rs sessions`: who is connected to a broker, and ending it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import blocks, operating
from .operating import Api, connect, moment, reported

if TYPE_CHECKING:
    import argparse

HELP = "list the sessions of a broker, show, disconnect or remove one, block the addresses of many"
EXAMPLES = """\
proxyproto-rs sessions --config broker.yaml
proxyproto-rs sessions --ip 192.0.2.0/24 --state connected --watch
proxyproto-rs sessions --user meter --json | jq '.data[].clientIpAdr'
proxyproto-rs sessions show dev-7
proxyproto-rs sessions disconnect dev-7
proxyproto-rs sessions --client bot- block --for 1d --dry-run
"""
EXTRA = "mqtt"

_PATH = "/api/v2/client-session"
_COLUMNS: list[operating.Column] = [
    ("client id", lambda row: row["clientId"]),
    ("address", lambda row: _endpoint(row["clientIpAdr"], row["clientPort"])),
    ("user", lambda row: row["username"]),
    ("listener", lambda row: row["listener"]),
    ("state", lambda row: row["connectionState"].lower()),
    ("since", lambda row: moment(row["connectedAt"])),
    ("proxy", lambda row: row["proxyIpAdr"]),
    ("MQTT", lambda row: row["mqttVersion"].removeprefix("MQTT_").replace("_", ".")),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    operating.add_arguments(parser)
    operating.add_limit(parser)
    operating.add_client_filters(parser)
    parser.add_argument("--listener", metavar="NAME", help="the listener")
    parser.add_argument(
        "--state", choices=("connected", "disconnected"), help="whether the client is connected"
    )
    parser.add_argument(
        "--sort", default="connectedAt", metavar="NAME", help="a name of the JSON; default %(default)s"
    )
    parser.add_argument("--ascending", action="store_true", help="the smallest first")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, text in (
        ("show", "show everything of one session, with its subscriptions"),
        ("disconnect", "end the connection of a client"),
        ("remove", "forget the session of a client that is not connected"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("id", metavar="ID", help="the client id")
        operating.add_to_action(action)
    blocks.add_block_action(actions)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 0 if there is such a session."""
    with reported("sessions"):
        api = connect(arguments)
        if arguments.action == "block":
            return blocks.block_matching(api, arguments, _PATH, _filters(arguments))
        if arguments.action is not None:
            return _act(api, arguments.action, arguments.id)
        return operating.show(
            api, arguments, lambda: _find(api, arguments), _COLUMNS, lambda page: page["data"]
        )


def _find(api: Api, arguments: argparse.Namespace) -> Any:
    return api.ask(
        "GET",
        _PATH,
        pageSize=arguments.limit,
        sortProperty=arguments.sort,
        sortOrder="ASC" if arguments.ascending else "DESC",
        **_filters(arguments),
    )


def _filters(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "clientIpAddress": arguments.ip,
        "textSearch": arguments.client,
        "username": arguments.user,
        "listenerList": arguments.listener,
        "connectedStatusList": arguments.state and arguments.state.upper(),
    }


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _act(api: Api, action: str, client_id: str) -> int:
    if action == "show":
        print(json.dumps(api.ask("GET", "/api/client-session", clientId=client_id), indent=1))
    else:
        api.ask("DELETE", f"/api/client-session/{action}", clientId=client_id)
        print("disconnected" if action == "disconnect" else "removed")
    return operating.FOUND
