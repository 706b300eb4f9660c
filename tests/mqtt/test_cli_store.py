"""`proxyproto-rs store` as an operator runs it; and the ways to give a password, which nothing shows."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from proxyproto_rs.cli import main
from proxyproto_rs.mqtt.model.records import BlockedClient, UnauthorizedClient
from proxyproto_rs.mqtt.store.opening import open_store
from proxyproto_rs.mqtt.store.sqlite import schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from .postgres import Server

DAY = 86400.0
SECRET = "p@ss/wörd-hunter2"
ENCODED = "p%40ss%2Fw%C3%B6rd-hunter2"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def store(*arguments: str, verb: str = "store", **variables: str) -> Done:
    """Run a verb in this process: another one takes a second to import everything."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {**environment, **variables}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main([verb, *arguments])
    return Done(status, out.getvalue(), err.getvalue())


def broker(*arguments: str, **variables: str) -> Done:
    """Run a broker in a process of its own: it takes over the log."""
    done = subprocess.run(
        [sys.executable, "-m", "proxyproto_rs.cli", "broker", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def configuration(directory: Path, place: str, key: str = "store") -> str:
    path = directory / "broker.yaml"
    path.write_text(f'listeners: {{tcp: {{bind: "127.0.0.1:0"}}}}\n{key}: "{place}"\n')
    return str(path)


async def fill(place: str) -> None:
    opened = await open_store(place)
    now = int(opened.clock() * 1000)
    try:
        for client_id, days in (("old", 40), ("new", 1)):
            ts = now - int(days * DAY * 1000)
            await opened.upsert_unauthorized(
                [
                    UnauthorizedClient(
                        client_id=client_id,
                        ip_address="192.0.2.1",
                        ts=ts,
                        reason_code="denied",
                        listener="tcp",
                    )
                ]
            )
        for value, until in (("gone", now - int(40 * DAY * 1000)), ("lately", now - 1000), ("ever", 0)):
            await opened.put_block(BlockedClient(type="CLIENT_ID", value=value, expiration_time=until))
    finally:
        await opened.close()


async def left(place: str) -> set[str]:
    from proxyproto_rs.mqtt.model.records import UnauthorizedQuery

    opened = await open_store(place)
    try:
        rows = await opened.find_unauthorized(UnauthorizedQuery())
        blocks = await opened.blocks(0)
        return {row.client_id for row in rows.data} | {block.value for block in blocks.changed}
    finally:
        await opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `store` names: nothing is there yet."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/broker.db"
    server: Server = request.getfixturevalue("postgres_server")

    async def drop() -> None:
        import asyncpg

        connection = await asyncpg.connect(server.dsn())
        await connection.execute("DROP SCHEMA IF EXISTS proxyproto_rs CASCADE")
        await connection.close()

    asyncio.run(drop())
    return server.dsn()


def test_from_nothing_to_a_store_that_is_up_to_date(place: str, tmp_path: Path) -> None:
    config = configuration(tmp_path, place)
    before = store("check", "--config", config)
    assert before.returncode == 1, before.stderr
    assert "tables  none yet: `proxyproto-rs store migrate` makes them" in before.stdout
    assert not (tmp_path / "broker.db").exists()
    early = store("purge", "--older-than", "1d", "--config", config)
    assert early.returncode == 2
    assert "has not the tables of this version: `proxyproto-rs store migrate` first" in early.stderr
    made = store("migrate", "--config", config)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("the tables are made (version ")
    again = store("migrate", "--store", place)
    assert again.stdout.startswith("the tables are up to date (version ")
    after = store("check", "--store", place, "--json")
    assert after.returncode == 0, after.stderr
    found = json.loads(after.stdout)
    assert found["version"] == found["wanted"]
    assert found["rows"]["unauthorized_client"] == 0
    assert found["bytes"] > 0
    assert not found["missing"]
    if place.startswith("postgresql"):
        assert abs(found["clock_ahead"]) < 5


def test_what_is_old_is_counted_then_deleted(place: str, tmp_path: Path) -> None:
    asyncio.run(fill(place))
    arguments = ("purge", "--older-than", "30d", "--config", configuration(tmp_path, place))
    dry = store(*arguments, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout == "to delete: rows of refused clients: 1, expired blocks: 1\n"
    assert asyncio.run(left(place)) == {"old", "new", "gone", "lately", "ever"}
    done = store(*arguments)
    assert done.stdout == dry.stdout + "deleted: rows of refused clients: 1, expired blocks: 1\n"
    assert asyncio.run(left(place)) == {"new", "lately", "ever"}
    nothing = store(*arguments, "--json")
    assert json.loads(nothing.stdout) == {
        "unauthorized": 0,
        "blocks": 0,
        "deleted": {"unauthorized": 0, "blocks": 0},
    }


def test_a_block_that_is_purged_is_gone_for_nodes_that_poll(place: str, tmp_path: Path) -> None:
    asyncio.run(fill(place))

    async def polled() -> tuple[str, ...]:
        opened = await open_store(place)
        try:
            revision = (await opened.blocks(0)).revision
            await asyncio.to_thread(store, "purge", "--older-than", "30d", "--store", place)
            return (await opened.blocks(revision)).removed
        finally:
            await opened.close()

    assert asyncio.run(polled()) == ("CLIENT_ID:gone",)


@pytest.mark.parametrize("action", ["check", "migrate", "purge"])
def test_what_a_newer_version_has_written_is_left_alone(tmp_path: Path, action: str) -> None:
    path = tmp_path / "broker.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    more = ("--older-than", "1d") if action == "purge" else ()
    refused = store(action, *more, "--store", f"sqlite:{path}")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"proxyproto-rs store: store {path} cannot be opened: was written by a newer version"
        f" (schema 99, this one knows {schema.VERSION})\n"
    )


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("mysql://db", "--store must be sqlite:PATH, sqlite::memory: or postgresql://USER@HOST/DATABASE"),
        (f"sqlite:{__file__}/broker.db", f"store {__file__}/broker.db cannot be opened: Not a directory"),
        ("postgresql://u:hunter2@127.0.0.1:1/db", "store postgresql://127.0.0.1:1/db cannot be opened: "),
        ("postgresql://u:hunter2@a@b/db", "--store must have its user and password percent-encoded"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line(place: str, text: str) -> None:
    refused = store("check", "--store", place)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(f"proxyproto-rs store: {text}")
    assert refused.stderr.count("\n") == 1
    assert "hunter2" not in refused.stderr


def test_many_processes_migrate_at_once(place: str) -> None:
    command = [sys.executable, "-m", "proxyproto_rs.cli", "store", "migrate", "--store", place, "--json"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert sorted(one["before"] for one in said)[0] == 0
    assert [one["before"] for one in said].count(0) == 1, "one of them makes the tables"


def test_a_file_of_an_older_version_is_brought_up_in_one_step_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SCHEMA", schema.SCHEMA + "CREATE TABLE broken (")
    with contextlib.closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        with pytest.raises(sqlite3.Error):
            schema.create(db)
        assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        assert not db.in_transaction
        monkeypatch.undo()
        assert schema.create(db) == 0
        assert schema.create(db) == schema.VERSION


# rights and secrets in PostgreSQL


@pytest.fixture
async def keeper(postgres_server: Server) -> AsyncIterator[Server]:
    """A server with a user `keeper` who needs a password, and may make the schema."""
    import asyncpg

    hba = postgres_server.directory / "data" / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"local all keeper scram-sha-256\n{before}")
    connection = await asyncpg.connect(postgres_server.dsn())
    try:
        await connection.execute("DROP SCHEMA IF EXISTS proxyproto_rs CASCADE")
        await connection.execute(f"CREATE ROLE keeper LOGIN PASSWORD '{SECRET}'")
        await connection.execute("GRANT CREATE ON DATABASE postgres TO keeper")
        await connection.execute("SELECT pg_reload_conf()")
        yield postgres_server
    finally:
        hba.write_text(before)
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("DROP OWNED BY keeper CASCADE")
        await connection.execute("DROP ROLE keeper")
        await connection.close()


def given_by(
    way: str, server: Server, directory: Path, password: str, encoded: str
) -> tuple[str, dict[str, str]]:
    """Return a configuration that gives the password in this way, and the variables that it needs."""
    with_password = server.dsn().replace("//tests@", f"//keeper:{encoded}@")
    without = server.dsn().replace("//tests@", "//keeper@")
    if way == "store_file":
        (directory / "dsn").write_text(with_password + "\n")
        return configuration(directory, f"{directory}/dsn", "store_file"), {}
    if way == "variable":
        place = with_password.replace(f":{encoded}@", ":${DB_PASSWORD}@")
        return configuration(directory, place), {"DB_PASSWORD": encoded}
    path = directory / "pgpass"
    path.write_text(f"*:*:*:keeper:{password}\n", "utf-8")
    path.chmod(0o600)
    return configuration(directory, without), {"PGPASSFILE": str(path)}


@pytest.mark.parametrize("way", ["PGPASSFILE", "store_file", "variable"])
async def test_each_way_to_give_a_password_works_and_nothing_shows_it(
    keeper: Server, tmp_path: Path, way: str
) -> None:
    config, variables = given_by(way, keeper, tmp_path, SECRET, ENCODED)
    calls: list[tuple[str, list[str], int]] = [
        ("store", ["migrate"], 0),
        ("store", ["check"], 0),
        ("store", ["check", "--json"], 0),
        ("store", ["purge", "--older-than", "1d"], 0),
        ("broker", ["--check", "--allow-anonymous"], 0),
        ("broker", ["--print-config"], 0),
    ]
    for verb, arguments, status in calls:
        done = await asyncio.to_thread(store, *arguments, "--config", config, verb=verb, **variables)
        assert done.returncode == status, (arguments, done.stderr)
        assert "hunter2" not in done.stdout + done.stderr, arguments


@pytest.mark.parametrize("way", ["PGPASSFILE", "store_file", "variable"])
async def test_a_wrong_password_is_one_line_that_does_not_show_it(
    keeper: Server, tmp_path: Path, way: str
) -> None:
    config, variables = given_by(way, keeper, tmp_path, "wrong-hunter2", "wrong-hunter2")
    calls: list[tuple[str, list[str]]] = [
        ("store", ["migrate"]),
        ("store", ["check"]),
        ("store", ["purge", "--older-than", "1d"]),
        ("broker", ["--check", "--allow-anonymous"]),
        ("", ["--allow-anonymous"]),
    ]
    for verb, arguments in calls:
        if verb:
            done = await asyncio.to_thread(store, *arguments, "--config", config, verb=verb, **variables)
        else:
            done = await asyncio.to_thread(broker, *arguments, "--config", config, **variables)
        assert done.returncode == 2, (arguments, done.stderr)
        assert 'password authentication failed for user "keeper"' in done.stderr
        assert "look at the password in PGPASSFILE, store_file or ${NAME}" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr, arguments


async def test_rights_that_are_missing_are_named_with_the_remedy(keeper: Server, tmp_path: Path) -> None:
    import asyncpg

    config, variables = given_by("store_file", keeper, tmp_path, SECRET, ENCODED)
    connection = await asyncpg.connect(keeper.dsn())
    try:
        await connection.execute("REVOKE CREATE ON DATABASE postgres FROM keeper")
        early = await asyncio.to_thread(store, "check", "--config", config, **variables)
        assert early.returncode == 2
        assert "missing the user may not make tables: let an administrator GRANT CREATE" in early.stdout
        await asyncio.to_thread(store, "migrate", "--store", keeper.dsn())
        await connection.execute("GRANT USAGE ON SCHEMA proxyproto_rs TO keeper")
        await connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA proxyproto_rs TO keeper")
        late = await asyncio.to_thread(store, "check", "--config", config, **variables)
    finally:
        await connection.close()
    assert late.returncode == 2
    assert (
        "missing the user may not INSERT, UPDATE, DELETE in blocked_client: let the owner GRANT"
        in late.stdout
    )
    assert ", up to date" in late.stdout
