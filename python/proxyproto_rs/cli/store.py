"""`proxyproto-rs store`: looks at the store of a broker, brings its tables up to date, and deletes what is old."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .colours import printable
from .operating import duration

if TYPE_CHECKING:
    from proxyproto_rs.mqtt.store.examined import Examined

HELP = "look at the store of a broker, bring its tables up to date, delete what is old"
EXTRA = "mqtt"
EXAMPLES = """\
proxyproto-rs store check --config broker.yaml
proxyproto-rs store migrate --config broker.yaml
proxyproto-rs store purge --older-than 30d --dry-run --config broker.yaml
PGPASSFILE=/etc/proxyproto-rs/pgpass proxyproto-rs store check --store postgresql://mqtt@db1,db2/mqtt
"""

_UNFINISHED, _TROUBLE = 1, 2
_LARGE_DIFFERENCE = 5.0  # seconds between the clocks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options to its parser."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="look at it, and change nothing; status 1: it needs `migrate`")
    migrate = actions.add_parser("migrate", help="make the tables, or bring them to this version")
    purge = actions.add_parser("purge", help="delete refused clients and expired blocks that are old")
    for action in (check, migrate, purge):
        place = action.add_mutually_exclusive_group()
        place.add_argument(
            "--config", metavar="FILE", help="the broker's configuration, which names the store"
        )
        place.add_argument("--store", metavar="URL", help="sqlite:PATH or postgresql://USER@HOST/DATABASE")
        action.add_argument("--json", action="store_true", help="print JSON")
    purge.add_argument(
        "--older-than", type=duration, required=True, metavar="TIME", help="90s, 10m, 24h, 30d"
    )
    purge.add_argument("--dry-run", action="store_true", help="only say how much there is to delete")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 0 if all is well."""
    from proxyproto_rs.mqtt.config import ConfigError
    from proxyproto_rs.mqtt.store.protocol import StoreError

    try:
        place = _place(arguments)
        work = {"check": _check, "migrate": _migrate, "purge": _purge}[arguments.action]
        return asyncio.run(work(arguments, *place))
    except (ConfigError, StoreError) as wrong:
        sys.stderr.write(
            "".join(f"proxyproto-rs store: {printable(line)}\n" for line in str(wrong).splitlines())
        )
        return _TROUBLE


def _place(arguments: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return the keys `store` and `store_file`. Raises ConfigError, StoreError."""
    from proxyproto_rs.mqtt.config import load
    from proxyproto_rs.mqtt.config.values import refuse_unknown_store
    from proxyproto_rs.mqtt.store.protocol import StoreError

    if arguments.store is None:
        config = load(arguments.config, usable=False).config
        return config.store, config.store_file
    try:
        refuse_unknown_store(arguments.store)
    except ValueError as wrong:
        raise StoreError(f"--store {wrong}") from None
    return arguments.store, None


async def _check(arguments: argparse.Namespace, store: str | None, file: str | None) -> int:
    from proxyproto_rs.mqtt.store.opening import examine_store

    found = await examine_store(store, file)
    if arguments.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        print("\n".join(_lines(found)))
    if found.missing:
        return _TROUBLE
    return 0 if found.version == found.wanted else _UNFINISHED


def _lines(found: Examined) -> list[str]:
    version = f"{found.version}, up to date"
    if found.version == 0:
        version = f"none yet: `proxyproto-rs store migrate` makes them (version {found.wanted}), and so does a broker"
    elif found.version != found.wanted:
        version = f"{found.version}; `proxyproto-rs store migrate` brings them to {found.wanted}"
    lines = [f"store   {printable(found.place)}", f"server  {printable(found.server)}", f"tables  {version}"]
    if found.clock_ahead is not None:
        far = abs(found.clock_ahead) > _LARGE_DIFFERENCE
        remark = "; rows have the time of the database" if far else ""
        lines.append(f"clock   {found.clock_ahead:+.3f} s from this machine's{remark}")
    lines.append(f"size    {found.bytes} bytes")
    lines += [f"rows    {name}: {count}" for name, count in found.rows.items()]
    return lines + [f"missing {printable(text)}" for text in found.missing]


async def _migrate(arguments: argparse.Namespace, store: str | None, file: str | None) -> int:
    from proxyproto_rs.mqtt.store.opening import migrate_store

    before, now = await migrate_store(store, file)
    if arguments.json:
        print(json.dumps({"before": before, "now": now}))
    elif before == now:
        print(f"the tables are up to date (version {now})")
    else:
        print(
            f"the tables are made (version {now})"
            if before == 0
            else f"the tables went from version {before} to {now}"
        )
    return 0


async def _purge(arguments: argparse.Namespace, store: str | None, file: str | None) -> int:
    from proxyproto_rs.mqtt.store.opening import examine_store, open_store
    from proxyproto_rs.mqtt.store.protocol import StoreError
    from proxyproto_rs.mqtt.store.purging import purge, purgeable

    found = await examine_store(store, file)
    if found.version != found.wanted:
        raise StoreError(
            f"store {found.place} has not the tables of this version: `proxyproto-rs store migrate` first"
        )
    opened = await open_store(store, file)
    try:
        before = int((opened.clock() - arguments.older_than) * 1000)
        what = await purgeable(opened, before)
        counts: dict[str, Any] = {"unauthorized": what.unauthorized, "blocks": len(what.blocks)}
        if not arguments.json:
            print(f"to delete: {_counted(what.unauthorized, len(what.blocks))}", flush=True)
        if not arguments.dry_run:
            deleted = await purge(opened, before, what)
            counts = {**counts, "deleted": dict(zip(counts, deleted, strict=True))}
            if not arguments.json:
                print(f"deleted: {_counted(*deleted)}")
        if arguments.json:
            print(json.dumps(counts))
    finally:
        await opened.close()
    return 0


def _counted(unauthorized: int, blocks: int) -> str:
    return f"rows of refused clients: {unauthorized}, expired blocks: {blocks}"
