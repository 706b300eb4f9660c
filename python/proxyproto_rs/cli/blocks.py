"""`proxyproto-rs blocks`: whom a broker keeps out, and changing that."""

from __future__ import annotations

import argparse
import functools
import json
import time
from typing import Any

from . import operating
from .colours import printable
from .operating import Api, connect, duration, moment, reported
from .trouble import Trouble

HELP = "list the blocks of a broker and the lists of others, add or remove a block"
EXAMPLES = """\
proxyproto-rs blocks --config broker.yaml
proxyproto-rs blocks add 203.0.113.0/24 --dry-run
proxyproto-rs blocks add 203.0.113.7 --for 1h --why 'guesses passwords'
proxyproto-rs blocks add --type client dev-7
proxyproto-rs blocks add --type regex 'bot-.*' --of client
proxyproto-rs blocks remove 203.0.113.7
proxyproto-rs blocks --value 203.0.113. remove --all --dry-run
proxyproto-rs blocks lists
"""
EXTRA = "mqtt"

_TYPES = {"ip": "IP_ADDRESS", "client": "CLIENT_ID", "user": "USERNAME", "regex": "REGEX"}
_TARGETS = {"client": "BY_CLIENT_ID", "user": "BY_USERNAME", "ip": "BY_IP_ADDRESS"}
_COLUMNS: list[operating.Column] = [
    ("type", lambda row: row["type"]),
    ("value", lambda row: row["value"]),
    ("of", lambda row: row["regexMatchTarget"]),
    ("status", lambda row: row["status"].lower()),
    ("until", lambda row: moment(row["expirationTime"]) or "for ever"),
    ("hits", lambda row: row["hits"]),
    ("by", lambda row: row["createdBy"]),
    ("why", lambda row: row["description"]),
]
_LIST_COLUMNS: list[operating.Column] = [
    ("list", lambda row: row["name"]),
    ("kind", lambda row: row["kind"]),
    ("networks", lambda row: row["networks"]),
    ("read", lambda row: moment(row["readAt"]) or "never"),
    ("hits", lambda row: row["hits"]),
    ("trouble", lambda row: row["error"]),
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    operating.add_arguments(parser)
    operating.add_limit(parser)
    parser.add_argument("--value", metavar="TEXT", help="a part of what is blocked")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    add = actions.add_parser("add", help="block an address, a network, a client id, a user or a pattern")
    remove = actions.add_parser("remove", help="remove a block")
    add.add_argument("what", metavar="VALUE", help="what to block")
    remove.add_argument("what", metavar="VALUE", nargs="?", help="what is blocked")
    remove.add_argument("--all", action="store_true", help="remove all whose value holds the text of --value")
    for action in (add, remove):
        action.add_argument("--type", choices=_TYPES, default="ip", help="what VALUE is; default %(default)s")
        operating.add_to_action(action)
        action.add_argument("--of", choices=_TARGETS, help="what a pattern must match")
    lists = actions.add_parser("lists", help="show the lists of addresses that others keep")
    operating.add_to_action(lists)
    remove.add_argument("--dry-run", action="store_true", help="with --all: only count the blocks")
    _add_terms(add)


def add_block_action(actions: Any) -> None:
    """Add the action that blocks the addresses of all rows that the options of the verb choose."""
    action = actions.add_parser("block", help="block the addresses of all that the options choose")
    operating.add_to_action(action)
    _add_terms(action)


def _add_terms(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--for", dest="seconds", type=duration, metavar="TIME", help="10m, 24h, 3d; default: for ever"
    )
    action.add_argument("--why", metavar="TEXT", help="a note for whoever sees the block")
    action.add_argument("--dry-run", action="store_true", help="only say whom it would end")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 0 if there are such blocks or lists, or if it is done."""
    with reported("blocks"):
        api = connect(arguments)
        if arguments.action == "add":
            return _add(api, arguments)
        if arguments.action == "remove":
            return _remove(api, arguments)
        if arguments.action == "lists":
            asked = functools.partial(api.ask, "GET", "/api/blocklists")
            return operating.show(api, arguments, asked, _LIST_COLUMNS, lambda lists: lists)
        return operating.show(
            api,
            arguments,
            lambda: api.ask("GET", "/api/blockedClient/v2", pageSize=arguments.limit, value=arguments.value),
            _COLUMNS,
            lambda page: page["data"],
        )


def _add(api: Api, arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        seen = api.ask("GET", "/api/blockedClient/preview", **_named(arguments))
        print(json.dumps(seen, indent=1) if arguments.json else _preview(seen))
        return operating.TROUBLE if seen["refusedBecause"] else operating.FOUND
    body = {**_named(arguments), **_terms(arguments)}
    made = api.ask(
        "POST", "/api/blockedClient", {name: value for name, value in body.items() if value is not None}
    )
    until = moment(made["expirationTime"])
    said = f"{printable(made['value'])} is blocked {'for ever' if until is None else f'until {until}'}"
    print(json.dumps(made, indent=1) if arguments.json else said)
    return operating.FOUND


def block_matching(api: Api, arguments: argparse.Namespace, path: str, filters: dict[str, Any]) -> int:
    """Block the addresses of the rows that match, or say whom that would end. Return the exit status."""
    if arguments.dry_run:
        seen = api.ask("GET", f"{path}/block/preview", **filters)
        addresses = _plural(seen["addresses"], "address", "es")
        said, found = f"{addresses} would be blocked; {_preview(seen)}", seen["addresses"]
    else:
        seen = api.ask("POST", f"{path}/block", _terms(arguments), **filters)
        said, found = f"{_plural(seen['count'], 'address', 'es')} blocked", seen["count"]
    more = "\nmore rows match than one request takes" if seen["more"] else ""
    print(json.dumps(seen, indent=1) if arguments.json else said + more)
    return operating.FOUND if found else operating.NOTHING


def _terms(arguments: argparse.Namespace) -> dict[str, Any]:
    until = 0 if arguments.seconds is None else int((time.time() + arguments.seconds) * 1000)
    return {"expirationTime": until, "description": arguments.why}


def _remove(api: Api, arguments: argparse.Namespace) -> int:
    many = arguments.all and arguments.value is not None
    if arguments.all != many or many != (arguments.what is None):
        raise Trouble("remove which? Give VALUE, or --value TEXT and behind `remove` --all")
    if arguments.dry_run and not many:
        raise Trouble("--dry-run counts what --all would remove")
    if not many:
        api.ask("DELETE", "/api/blockedClient", **_named(arguments))
        print(f"{printable(arguments.what)} is no longer blocked")
        return operating.FOUND
    if arguments.dry_run:
        found = api.ask("GET", "/api/blockedClient/v2", pageSize=1, value=arguments.value)["totalElements"]
    else:
        found = api.ask("DELETE", "/api/blockedClient/v2", value=arguments.value)["count"]
    said = f"{_plural(found, 'block')} {'would be ' if arguments.dry_run else ''}removed"
    print(json.dumps({"count": found}) if arguments.json else said)
    return operating.FOUND if found else operating.NOTHING


def _named(arguments: argparse.Namespace) -> dict[str, Any]:
    target = None if arguments.of is None else _TARGETS[arguments.of]
    return {"type": _TYPES[arguments.type], "value": arguments.what, "regexMatchTarget": target}


def _preview(seen: dict[str, Any]) -> str:
    if seen.get("refusedBecause"):
        return f"not allowed: {printable(seen['refusedBecause'])}"
    counted = f"{_plural(seen['sessions'], 'session')}, {_plural(seen['users'], 'user')}"
    names = ", ".join(printable(name) for name in seen["examples"])
    return f"{counted} would end" + (f": {names}" if names else "")


def _plural(number: int, word: str, ending: str = "s") -> str:
    return f"{number} {word}" + ("" if number == 1 else ending)
