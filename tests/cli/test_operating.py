"""The verbs that ask a running broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from cli import keyboard
from interop.certificates import make
from mqtt.http.asking import READ_TOKEN, TOKEN, serving
from mqtt.peers import CLIENT, OTHER, WAIT, connect, dial, log_in
from proxyproto_rs.cli import main, operating

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


class Said:
    """Runs verbs beside the broker's event loop."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    async def by(self, *words: str, status: int = 0) -> str:
        """Run a verb; return what it prints."""

        def run() -> int:
            try:
                return main(words)
            except SystemExit as ended:
                return int(ended.code or 0)

        assert await asyncio.to_thread(run) == status
        printed = self._capsys.readouterr()
        self.errors = printed.err
        return printed.out


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXYPROTO_RS_URL", raising=False)
    monkeypatch.delenv("PROXYPROTO_RS_TOKEN", raising=False)


def name(monkeypatch: pytest.MonkeyPatch, url: str, token: str = TOKEN) -> None:
    monkeypatch.setenv("PROXYPROTO_RS_URL", url)
    monkeypatch.setenv("PROXYPROTO_RS_TOKEN", token)


async def test_sessions(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serving() as (broker, api),
        log_in(broker.address(), connect("dev-1")) as one,
        log_in(broker.address(), connect("dev-2\u202e"), source=("2001:db8::7", 4711)),
    ):
        name(monkeypatch, api.url)
        table = await said.by("sessions", "--sort", "clientId", "--ascending")
        lines = table.splitlines()
        assert lines[0].split()[:3] == ["client", "id", "address"]
        assert lines[1].split()[:3] == ["dev-1", "192.0.2.10:50123", "user"]
        assert lines[2].split()[:2] == ["dev-2\\u202e", "[2001:db8::7]:4711"]
        only = json.loads(
            await said.by("sessions", "--ip", "2001:db8::/32", "--state", "connected", "--json")
        )
        assert [row["clientIpAdr"] for row in only["data"]] == ["2001:db8::7"]
        assert await said.by("sessions", "--user", "nobody", status=1) == "(none)\n"
        assert json.loads(await said.by("sessions", "show", "dev-1"))["subscriptions"] == []
        assert await said.by("sessions", "disconnect", "dev-1") == "disconnected\n"
        assert await one.end() == b""
        await said.by("sessions", "disconnect", "dev-1", status=1)
        assert said.errors == "proxyproto-rs sessions: client 'dev-1' is not connected\n"
        await said.by("sessions", "--limit", "5000", status=2)
        assert "pageSize must be between 1 and 1000" in said.errors


async def test_refused_and_listeners(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (broker, api):
        name(monkeypatch, api.url, READ_TOKEN)
        assert await said.by("listeners", "--refusals", status=1) == "(none)\n"
        async with log_in(broker.address(), connect("guess", password=b"x"), source=OTHER):
            pass
        async with dial(broker.address(), b"\x10\x0c\0\x04MQTT", header=b"") as client:
            assert await client.end() == b""
        await broker.rows(2)
        assert "bad-credentials" in await said.by("refused", "--ip", "198.51.100.0/24", "--since", "1h")
        assert await said.by("refused", "--reason", "timeout", status=1) == "(none)\n"
        row = (await said.by("listeners")).splitlines()[1].split()
        assert row[:4] == ["tcp", "tcp", f"127.0.0.1:{broker.address()[1]}", "required"]
        why = await said.by("listeners", "--refusals")
        assert "missing-header" in why
        assert "\n    What to do: switch the header on in the proxy: send-proxy-v2" in why


async def test_blocks(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev-1")) as client:
        name(monkeypatch, api.url)
        assert await said.by("blocks", status=1) == "(none)\n"
        preview = await said.by("blocks", "add", "192.0.2.0/24", "--dry-run")
        assert preview == "1 session, 1 user would end: dev-1\n"
        assert broker.service.sessions.connected == 1
        refused = await said.by("blocks", "add", "127.0.0.1", "--dry-run", status=2)
        assert refused.startswith("not allowed: ")
        await said.by("blocks", "add", "127.0.0.1", status=2)
        assert "would block the trusted proxy" in said.errors
        done = await said.by("blocks", "add", "192.0.2.0/24", "--for", "1h", "--why", "noisy")
        assert done.startswith("192.0.2.0/24 is blocked until ")
        assert await client.end() == b""
        pattern = ("bot-.*", "--type", "regex", "--of", "client")
        assert await said.by("blocks", "add", *pattern) == "bot-.* is blocked for ever\n"
        table = await said.by("blocks")
        assert "noisy" in table
        assert "BY_CLIENT_ID" in table
        await said.by("blocks", "remove", *pattern)
        assert await said.by("blocks", "remove", "192.0.2.0/24") == "192.0.2.0/24 is no longer blocked\n"
        await said.by("blocks", "remove", "192.0.2.0/24", status=1)
        name(monkeypatch, api.url, READ_TOKEN)
        await said.by("blocks", "add", "192.0.2.1", status=2)
        assert said.errors == "proxyproto-rs blocks: this token may only read\n"


async def test_many_are_blocked_and_unblocked(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev-1")) as client:
        name(monkeypatch, api.url)
        async with log_in(broker.address(), connect("guess", password=b"x"), source=OTHER):
            pass
        await broker.rows(1)
        dry = await said.by("sessions", "--client", "dev-", "block", "--dry-run")
        assert dry == "1 address would be blocked; 1 session, 1 user would end: dev-1\n"
        assert broker.service.sessions.connected == 1
        await said.by("sessions", "block", "--dry-run", status=2)
        assert "name a filter" in said.errors
        assert await said.by("sessions", "--client", "nobody", "block", status=1) == "0 addresses blocked\n"
        assert await said.by("sessions", "--client", "dev-", "block", "--for", "1h") == "1 address blocked\n"
        assert await client.end() == b""
        guessers = ("refused", "--reason", "bad-credentials", "--since", "1h", "block")
        assert json.loads(await said.by(*guessers, "--dry-run", "--json"))["addresses"] == 1
        assert await said.by(*guessers, "--why", "guesses") == "1 address blocked\n"
        assert "guesses" in await said.by("blocks", "--value", OTHER[0])
        one = ("blocks", "--value", OTHER[0], "remove")
        assert await said.by(*one, "--all", "--dry-run") == "1 block would be removed\n"
        assert await said.by(*one, "--all") == "1 block removed\n"
        assert await said.by(*one, "--all", status=1) == "0 blocks removed\n"
        for wrong in ((), ("--all",), ("--all", CLIENT[0])):
            await said.by("blocks", "remove", *wrong, status=2)
            assert "remove which?" in said.errors
        await said.by("blocks", "remove", CLIENT[0], "--dry-run", status=2)
        await said.by("blocks", "remove", CLIENT[0])
        assert await said.by("blocks", status=1) == "(none)\n"


async def test_lists_of_others(said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with serving() as (_, api):
        name(monkeypatch, api.url)
        assert await said.by("blocks", "lists", status=1) == "(none)\n"
    (tmp_path / "bad").write_text("203.0.113.0/24\n198.51.100.9\n")
    lists = [{"file": str(tmp_path / "bad")}, {"file": str(tmp_path / "gone")}]
    async with serving(blocklists=lists) as (broker, api):
        name(monkeypatch, api.url)
        await broker.until(
            lambda: all(state.read_at or state.error for state in broker.service.blocklists.states())
        )
        head, bad, gone = (await said.by("blocks", "lists")).splitlines()
        assert head.split() == ["list", "kind", "networks", "read", "hits", "trouble"]
        assert bad.split()[:3] == ["bad", "file", "2"]
        assert "never" in gone
        assert gone.endswith("No such file or directory")
        assert [one["networks"] for one in json.loads(await said.by("blocks", "lists", "--json"))] == [2, 0]


async def test_top(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (broker, api), log_in(broker.address(), connect("dev-1")):
        name(monkeypatch, api.url)
        assert (await said.by("top")).splitlines()[1].split() == ["192.0.2.10", "1"]
        assert (await said.by("top", "--networks", "--by", "sessions")).splitlines()[1].split() == [
            "192.0.2.0/24",
            "1",
        ]
        assert await said.by("top", "--by", "refused", status=1) == "(none)\n"


async def test_the_broker_is_found_by_its_configuration(said: Said, tmp_path: Path) -> None:
    server = str(make(tmp_path).server)
    for tls in (None, {"certfile": server, "keyfile": server}):
        store = f"sqlite:{tmp_path}/broker.db"
        http = {"bind": "127.0.0.1:0", "token": None, "read_token": None, "tls": tls}
        async with serving(http, store=store) as (_, api):
            port = int(api.url.rstrip("/").rpartition(":")[2])
            file = tmp_path / "broker.yaml"
            section = {"bind": f"127.0.0.1:{port}", "tls": tls}
            tree = {"listeners": {"tcp": {}}, "store": store, "http": section}
            file.write_text(yaml.safe_dump(tree))
            assert "every peer" not in await said.by("listeners", "--config", str(file))
            assert (
                await said.by("blocks", "add", "192.0.2.1", "--config", str(file))
                == "192.0.2.1 is blocked for ever\n"
            )


WRONG = [
    ({}, (), "which broker? Give --config FILE, or set PROXYPROTO_RS_URL and PROXYPROTO_RS_TOKEN"),
    ({"PROXYPROTO_RS_URL": "ftp://x", "PROXYPROTO_RS_TOKEN": "t"}, (), "must begin with http:// or https://"),
    (
        {"PROXYPROTO_RS_URL": "http://127.0.0.1:1", "PROXYPROTO_RS_TOKEN": "t"},
        (),
        "http://127.0.0.1:1 cannot be asked: ",
    ),
    ({}, ("--config", "/none/such.yaml"), "/none/such.yaml: cannot be read"),
]


@pytest.mark.parametrize(("variables", "options", "text"), WRONG, ids=[text for *_, text in WRONG])
async def test_what_is_wrong_is_one_line(
    variables: dict[str, str],
    options: tuple[str, ...],
    text: str,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert await said.by("sessions", *options, status=2) == ""
    assert text in said.errors
    assert said.errors.count("\n") == 1


async def test_health_is_an_exit_status(said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with serving() as (_, api):
        monkeypatch.setenv("PROXYPROTO_RS_URL", api.url)
        assert await said.by("health") == "ready\n"
        assert await said.by("health", "--alive") == "ok\n"
    async with serving() as (broker, api):
        monkeypatch.setenv("PROXYPROTO_RS_URL", api.url)
        for port in broker.service.listening.values():
            port.close()
        assert await said.by("health", status=1) == ""
        assert said.errors == "proxyproto-rs health: not ready: listener tcp is closed\n"
        assert await said.by("health", "--alive") == "ok\n"
    assert await said.by("health", status=1) == ""
    assert "cannot be asked" in said.errors
    monkeypatch.delenv("PROXYPROTO_RS_URL")
    assert await said.by("health", status=1) == ""
    assert "Give --config FILE, or set PROXYPROTO_RS_URL\n" in said.errors
    file = tmp_path / "broker.yaml"
    file.write_text("listeners: {tcp: {}}\nhttp: {bind: '127.0.0.1:1'}\n")
    assert await said.by("health", "--config", str(file), status=1) == ""
    assert "http://127.0.0.1:1 cannot be asked" in said.errors


async def test_a_configuration_without_an_api_says_so(said: Said, tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("listeners: {tcp: {}}\n")
    await said.by("top", "--config", str(file), status=2)
    assert "has no section http" in said.errors


def test_a_table_fits_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    columns: list[operating.Column] = [("one", lambda row: row["a"]), ("two", lambda row: row["b"])]
    text = operating.table(columns, [{"a": "x" * 100, "b": "y" * 10}])
    assert [len(line) for line in text.splitlines()] == [3 + 27 + 3, 40]
    assert "…" in text


async def test_watching_shows_what_has_changed() -> None:
    async with serving() as (broker, api):
        variables = {**os.environ, "PROXYPROTO_RS_URL": api.url, "PROXYPROTO_RS_TOKEN": READ_TOKEN}
        command = [sys.executable, "-m", "proxyproto_rs.cli", "sessions", "--json", "--watch"]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, env=variables, preexec_fn=keyboard.heed
        )
        assert process.stdout is not None
        try:
            assert json.loads(await asyncio.wait_for(process.stdout.readline(), WAIT))["data"] == []
            async with log_in(broker.address(), connect("dev-1")):
                now = json.loads(await asyncio.wait_for(process.stdout.readline(), WAIT))
            assert [row["clientId"] for row in now["data"]] == ["dev-1"]
        finally:
            process.send_signal(signal.SIGINT)
            await process.communicate()
        assert process.returncode == 130


def test_with_an_address_and_a_token_no_extra_is_needed() -> None:
    code = (
        "import sys\n"
        "for missing in ('pydantic', 'aiohttp', 'prometheus_client', 'amqtt', 'yaml', 're2'): sys.modules[missing] = None\n"
        "from proxyproto_rs.cli import main\n"
        "main(['sessions'])\n"
    )
    variables = {**os.environ, "PROXYPROTO_RS_URL": "http://127.0.0.1:1", "PROXYPROTO_RS_TOKEN": "t"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("proxyproto-rs sessions: http://127.0.0.1:1 cannot be asked: ")
