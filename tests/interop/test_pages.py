"""docs/ holds together: links lead somewhere, examples run or are configuration, tables are complete."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import proxyproto_rs
from interop.pages import DOCS, example, examples, read, run_example, text
from interop.test_servers import SERVERS
from peers import CLIENT, V2, connected
from proxyproto_rs import (
    AddressSet,
    Decoder,
    Header,
    Listener,
    ListenerOptions,
    ListenerStats,
    Refusal,
    Server,
    SslInfo,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROOT = DOCS.parent
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
OTHERS = ["../README.md", "../CONTRIBUTING.md", "../SECURITY.md"]

LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)

# Each of these pages has a test module of its own.
RUN_ELSEWHERE = {
    "howto/deployment.md": "test_deployment.py",
    "howto/haproxy.md": "test_haproxy.py",
    "howto/nginx.md": "test_nginx.py",
    "howto/install.md": "test_install.py",
    "howto/kubernetes.md": "test_kubernetes.py",
    "howto/mqtt-python.md": "test_mqtt_python.py",
    "howto/testing.md": "test_by_hand.py",
    "reference/command-line.md": "test_command_line_page.py",
    "topics/ipv4-mapped.md": "test_ipv4_mapped.py",
    "tutorial.md": "test_tutorial.py",
}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made on most sites."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_links_lead_somewhere(page: str) -> None:
    for match in LINK.finditer(read(page)):
        name, _, anchor = match["target"].partition("#")
        target = (DOCS / page).parent / name if name else DOCS / page
        assert target.is_file(), f"{page} links to {match['target']}"
        assert not anchor or anchor in anchors(target), f"{page} links to {match['target']}"


def test_files_that_contributing_names_are_there() -> None:
    named = set(re.findall(r"\b[\w/]+\.(?:rs|pyi?)\b", read("../CONTRIBUTING.md")))
    files = {path.name for folder in ("rust", "python", "tests") for path in (ROOT / folder).rglob("*.*")}
    assert sorted(name for name in named if name.rpartition("/")[2] not in files) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_in_the_index(page: str) -> None:
    assert page == "README.md" or f"({page})" in read("README.md")


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_what_they_say(page: str) -> None:
    for match in BLOCK.finditer(read(page)):
        if match["language"] == "yaml":
            yaml.safe_load(match["text"])
        elif match["language"] == "python":
            ast.parse(match["text"])


def test_every_server_that_is_shown_is_run() -> None:
    run = {(server.page, name) for server in SERVERS for name in server.examples.split()}
    run |= {("howto/asyncio.md", "asyncio-several"), ("howto/asyncio.md", "asyncio-restart")}
    run |= {("howto/trio.md", "twisted")}
    run |= {("howto/web.md", "gunicorn-conf"), ("howto/web.md", "gunicorn-app")}
    run |= {("howto/stdlib.md", "gevent")}
    pages = ("howto/asyncio.md", "howto/web.md", "howto/stdlib.md", "howto/trio.md")
    assert run == {(page, name) for page in pages for name in examples(page)}


@pytest.mark.parametrize(("page", "module"), RUN_ELSEWHERE.items(), ids=list(RUN_ELSEWHERE))
def test_every_other_example_is_run(page: str, module: str) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "interop").glob(f"{module[:-3]}*.py"))
    assert [name for name in examples(page) if f'"{name}"' not in tests] == []


def test_the_program_around_a_server_runs_it() -> None:
    served = []

    async def main(listener: Listener) -> None:
        served.append(listener.getsockname())

    replacements = {'"0.0.0.0", 8000': '"127.0.0.1", 0'}
    code = "".join(examples("howto/servers.md").values())
    for old, new in replacements.items():
        assert old in code
        code = code.replace(old, new)
    exec(code, {"main": main})
    assert len(served) == 1


TOPICS = [
    ("topics/trust.md", ["trusted"]),
    ("topics/limits.md", ["lists", "limits", "shared"]),
    ("topics/logs.md", ["stats", "prometheus", "on-refused"]),
]


@pytest.mark.parametrize(("page", "names"), TOPICS, ids=[page for page, _ in TOPICS])
def test_examples_of_topics_run(page: str, names: list[str], listener: Listener) -> None:
    assert names == list(examples(page))
    namespace: dict[str, object] = {}
    try:
        for name in names:
            code = re.sub(r'"0\.0\.0\.0", \d+', '"127.0.0.1", 0', examples(page)[name])
            namespace.setdefault("listener", listener)
            exec(compile(code, f"{page}:{name}", "exec"), namespace)
    finally:
        for value in namespace.values():
            if isinstance(value, Listener):
                value.close()


async def test_the_server_on_several_addresses_runs() -> None:
    hosts = {
        '["10.0.0.1", "fd00::1"], 8000': '["127.0.0.1", "127.0.0.2"], 0',
        '"10.0.0.0/8", "fd00::/8"': '"127.0.0.0/8"',
    }
    code = example("howto/asyncio.md", "asyncio-several", hosts)
    served: asyncio.Future[Server] = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def start_server(*given: Any, **options: Any) -> AsyncIterator[Server]:
        async with proxyproto_rs.start_server(*given, **options) as server:
            served.set_result(server)
            yield server

    namespace: dict[str, Any] = {"__name__": "docs"}
    exec(code, namespace)
    namespace["start_server"] = start_server
    task = asyncio.create_task(namespace["main"]())
    for sock in (await served).sockets:
        async with connected(sock.getsockname(), V2) as (reader, _):
            assert await reader.read() == f"{CLIENT[0]}\n".encode()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_line_of_the_start_is_that_of_the_code(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "proxyproto_rs.listener"),
        Listener("127.0.0.1", 0, trusted=["10.0.0.5", "10.0.0.6"]) as listener,
    ):
        host, port = listener.getsockname()
    (line,) = caplog.messages
    assert line.replace(f"{host}:{port}", "0.0.0.0:8000") == text("topics/logs.md", "listening")


def test_the_reference_names_everything_public() -> None:
    page = read("reference/api.md")
    words = set(re.findall(r"\w+", page))
    names = {*proxyproto_rs.__all__, *ListenerOptions.__annotations__}
    for public in (Listener, Header, SslInfo, Decoder, AddressSet, ListenerStats, Refusal):
        own = vars(public) if public in (Listener, ListenerStats) else dict(inspect.getmembers(public))
        names |= {name for name in own if not name.startswith("_")}
    assert sorted(names - words - {"isdisjoint"}) == []


def test_the_reference_names_every_public_module() -> None:
    # The names of exceptions are those of the package; the texts of explanations are shown, not imported.
    elsewhere = ("exceptions", "explanations")
    modules = {
        path for path in (ROOT / "python" / "proxyproto_rs").glob("[a-z]*.py") if path.stem not in elsewhere
    }
    rows = dict(re.findall(r"^\| `proxyproto_rs\.(\w+)` \| (.*?) \| ", read("reference/api.md"), re.M))
    assert {path.stem for path in modules} == set(rows)
    for path in modules:
        (names,) = re.findall(r"^__all__ = (\[.*?\])$", path.read_text(), re.M | re.S)
        assert set(ast.literal_eval(names)) == set(re.findall(r"`(\w+)", rows[path.stem])), path.stem


def test_defaults_in_the_reference_are_those_of_the_code(listener: Listener) -> None:
    listed = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| `(.+?)` \|", read("reference/api.md"), re.M)
    defaults = {
        name: ast.literal_eval(value) for names, value in listed for name in re.findall(r"\w+", names)
    }
    listener.update(trusted=None)
    assert defaults == dict(listener.options)


RULE = re.compile(r"^\| R(?P<number>\d+) [MSP] \| .+ \| `(?P<kept>\S+)` \| `(?P<tested>\S+)` \|$", re.M)
PREFIXES = {
    "codec/": "rust/codec/src/",
    "codec-tests/": "rust/codec/tests/",
    "acceptor/": "rust/acceptor/src/",
}

# The design keeps these rules: there is no single line that could name them.
BY_DESIGN = {1, 5, 8, 27, 31, 33, 35, 38, 39}


def test_every_rule_is_kept_and_tested_in_a_file_that_is_there() -> None:
    rules = list(RULE.finditer(read("reference/rules.md")))
    assert [int(rule["number"]) for rule in rules] == list(range(1, 40))
    for rule in rules:
        texts = []
        for name in (rule["kept"], rule["tested"]):
            prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
            texts.append((ROOT / (PREFIXES.get(prefix, "") + name.removeprefix(prefix))).read_text())
        number = int(rule["number"])
        named = re.search(rf"\bR{number}\b", "".join(texts))
        assert named or number in BY_DESIGN, f"neither {rule['kept']} nor {rule['tested']} names R{number}"


def test_examples_have_unique_names_and_languages() -> None:
    for page in PAGES:
        marks = re.findall(r"^<!-- example: ([\w-]+) -->$", read(page), re.M)
        assert marks == list(examples(page)), page


def test_a_missing_replacement_is_an_error() -> None:
    with pytest.raises(AssertionError, match="does not hold"):
        run_example("howto/testing.md", "decode", replacements={"no such text": ""})
