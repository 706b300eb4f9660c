"""Where lists come from: CrowdSec's API when it answers and when it does not, files, and the web."""

from __future__ import annotations

import asyncio
import gzip
import os
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mqtt import lapi
from mqtt.lapi import decision
from proxyproto_rs.mqtt.config.blocklists import BlocklistConfig
from proxyproto_rs.mqtt.tables.blocklists.networks import Protected, UnusableList
from proxyproto_rs.mqtt.tables.blocklists.sources import reader_of

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = Protected(())
HOUR = 3600.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def crowdsec(url: str, directory: Path, *, key: str = lapi.KEY, **other: Any) -> BlocklistConfig:
    (directory / "key").write_text(f"{key}\n")
    return BlocklistConfig.model_validate(
        {"crowdsec": {"url": url, "key_file": str(directory / "key")}, "timeout": 5, **other}
    )


async def test_all_decisions_come_first_and_changes_afterwards(tmp_path: Path) -> None:
    one, two = decision("192.0.2.1"), decision("198.51.100.0/24", scope="Range")
    async with lapi.serving(([one], None), ([two], []), (None, [one]), (None, [one])) as server:
        reader = reader_of(crowdsec(server.url + "/", tmp_path))
        first = await reader.read(NOBODY, anew=False)
        assert first is not None
        assert (first.new, first.gone) == (1, 0)
        for expected in ({"192.0.2.1", "198.51.100.0/24"}, {"198.51.100.0/24"}, {"198.51.100.0/24"}):
            await reader.read(NOBODY, anew=False)
            assert set(reader.addresses) == expected
        assert [asked["startup"] for asked in server.asked] == ["true", "false", "false", "false"]
        assert {(asked["scopes"], asked["dedup"]) for asked in server.asked} == {("ip,range", "false")}


FAULTS: list[tuple[Any, str]] = [
    (500, " answered 500"),
    (302, " answered 302"),
    (b"<html>502</html>", "is no answer of CrowdSec: has no '{' at character 0"),
    (
        b'{"new":[{"id":1,"duration":"1h","scope":"Ip","type":"ban","value":"192.0.2.7"}',
        "is no answer of CrowdSec",
    ),
]


@pytest.mark.parametrize(("fault", "text"), FAULTS)
async def test_after_a_fault_the_last_set_stays_and_everything_is_asked_for_again(
    tmp_path: Path, fault: Any, text: str
) -> None:
    one, two = decision("192.0.2.1"), decision("192.0.2.2")
    async with lapi.serving(([one], None), fault, ([two], None)) as server:
        reader = reader_of(crowdsec(server.url, tmp_path))
        await reader.read(NOBODY, anew=False)
        with pytest.raises(UnusableList) as wrong:
            await reader.read(NOBODY, anew=False)
        assert text in str(wrong.value)
        assert list(reader.addresses) == ["192.0.2.1"]
        await reader.read(NOBODY, anew=False)
        assert list(reader.addresses) == ["192.0.2.2"]
        assert [asked["startup"] for asked in server.asked] == ["true", "false", "true"]


async def test_what_the_api_has_kept_to_itself_comes_within_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    kept = decision("192.0.2.2")
    async with lapi.serving(([], None), (None, None), ([kept], None), (None, None)) as server:
        reader = reader_of(crowdsec(server.url, tmp_path), clock)
        for clock.now in (0.0, HOUR - 1, HOUR, HOUR + 10, 2 * HOUR - 1):
            await reader.read(NOBODY, anew=False)
        assert [asked["startup"] for asked in server.asked] == ["true", "false", "true", "false", "false"]
        assert list(reader.addresses) == ["192.0.2.2"]


async def test_decisions_end_while_the_api_is_away(tmp_path: Path) -> None:
    clock = Clock()
    told = [decision("192.0.2.1", duration="1h"), decision("192.0.2.2", duration="3h")]
    async with lapi.serving((told, None), 500) as server:
        reader = reader_of(crowdsec(server.url, tmp_path), clock)
        await reader.read(NOBODY, anew=False)
        clock.now = 2 * HOUR
        with pytest.raises(UnusableList):
            await reader.read(NOBODY, anew=False)
        assert list(reader.addresses) == ["192.0.2.2"]
    clock.now = 3 * HOUR
    with pytest.raises(UnusableList, match="cannot be read: "):
        await reader.read(NOBODY, anew=False)
    assert not list(reader.addresses)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_is_told_with_the_remedy_and_never_shown(
    tmp_path: Path, status: int
) -> None:
    async with lapi.serving(status) as server:
        reader = reader_of(crowdsec(server.url, tmp_path, key="another-key"))
        if status == 401:
            (tmp_path / "key").write_text(lapi.KEY)
        with pytest.raises(UnusableList) as wrong:
            await reader.read(NOBODY, anew=False)
    assert str(wrong.value) == (
        f"{server.url}/v1/decisions/stream answered {status}: it does not take the key in {tmp_path}/key: make one with"
        " `cscli bouncers add NAME -o raw`, and write it into that file"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "must hold one key"),
        (b"two words\n", "must hold one key"),
        (b"a\nb\n", "must hold one key"),
        (b"\xff\xfe", "must hold the key alone, in ASCII"),
        (b"a\x00b", "must hold one key"),
    ],
)
async def test_a_key_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, text: str) -> None:
    config = crowdsec("http://127.0.0.1:9", tmp_path)
    if content is None:
        (tmp_path / "key").unlink()
    else:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(UnusableList, match=text):
        await reader_of(config).read(NOBODY, anew=False)


async def test_an_answer_has_a_largest_size(tmp_path: Path) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)

    async with lapi.serving(endless) as server:
        reader = reader_of(crowdsec(server.url, tmp_path, max_size="1MiB"))
        with pytest.raises(UnusableList, match=r"has more than max_size \(1048576 bytes\)"):
            await reader.read(NOBODY, anew=False)


async def test_an_answer_has_a_longest_time(tmp_path: Path) -> None:
    over = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"new":[')
        await over.wait()
        return response

    async with lapi.serving(slow) as server:
        reader = reader_of(crowdsec(server.url, tmp_path, timeout="100ms"))
        with pytest.raises(UnusableList, match=r"has not answered whole in 0.1 s"):
            await reader.read(NOBODY, anew=False)
        over.set()


async def test_a_file_is_read_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "networks.txt"
    reader = reader_of(BlocklistConfig(file=str(path)))
    with pytest.raises(UnusableList, match=r"networks.txt cannot be read: No such file"):
        await reader.read(NOBODY, anew=False)
    path.write_text("192.0.2.1\n")
    assert await reader.read(NOBODY, anew=False) is not None
    assert await reader.read(NOBODY, anew=False) is None
    assert await reader.read(NOBODY, anew=True) is not None
    (tmp_path / "new").write_text("192.0.2.2\n")
    os.replace(tmp_path / "new", path)
    assert await reader.read(NOBODY, anew=False) is not None
    assert list(reader.addresses) == ["192.0.2.2"]
    path.write_text("<html>\n")
    for _ in range(2):
        with pytest.raises(UnusableList, match="is no list"):
            await reader.read(NOBODY, anew=False)
    path.unlink()
    with pytest.raises(UnusableList):
        await reader.read(NOBODY, anew=False)
    assert list(reader.addresses) == ["192.0.2.2"]


async def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"#" * 2000)
    with pytest.raises(UnusableList, match=r"large has more than max_size \(1000 bytes\)"):
        await reader_of(BlocklistConfig(file=str(tmp_path / "large"), max_size=1000)).read(NOBODY, anew=False)


async def test_a_url_is_read_by_its_etag() -> None:
    seen: list[str | None] = []
    texts = [("192.0.2.1", '"1"'), ("192.0.2.1", '"1"'), ("192.0.2.2\n192.0.2.3", '"2"')]

    async def serve(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("If-None-Match"))
        text, tag = texts[min(len(seen), len(texts)) - 1]
        status = 304 if seen[-1] == tag else 200
        return web.Response(status=status, text=text if status == 200 else "", headers={"ETag": tag})

    app = web.Application()
    app.router.add_get("/list.txt", serve)
    async with lapi.serving_app(app) as url:
        reader = reader_of(BlocklistConfig(url=f"{url}/list.txt"))
        assert await reader.read(NOBODY, anew=False) is not None
        assert await reader.read(NOBODY, anew=False) is None
        changes = await reader.read(NOBODY, anew=False)
        assert changes is not None
        assert (changes.new, changes.gone) == (2, 1)
        await reader.read(NOBODY, anew=True)
    assert seen == [None, '"1"', '"1"', None]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("error", " answered 500"),
        ("page", "is no list of networks"),
        ("compressed", "is sent compressed (gzip), which was not asked for"),
        ("refused", " answered 403: access is refused"),
        ("unasked", " answered 304"),
        ("loop", "cannot be read: "),
    ],
)
async def test_a_url_that_fails_leaves_the_last_good_list(kind: str, text: str) -> None:
    fails = False

    async def serve(request: web.Request) -> web.StreamResponse:
        if not fails:
            return web.Response(text="192.0.2.1\n")
        if kind == "loop":
            raise web.HTTPFound(request.path)
        if kind == "compressed":
            headers = {"Content-Encoding": "gzip"}
            return web.Response(body=gzip.compress(b"192.0.2.2\n" * 1000), headers=headers)
        status = {"error": 500, "refused": 403, "unasked": 304}.get(kind, 200)
        return web.Response(status=status, text="" if status == 304 else "<html>\n<p>\n")

    app = web.Application()
    app.router.add_get("/list.txt", serve)
    async with lapi.serving_app(app) as url:
        secret = url.replace("http://", "http://reader:hunter2@") + "/list.txt?token=hunter3"
        reader = reader_of(BlocklistConfig(url=secret))
        await reader.read(NOBODY, anew=False)
        fails = True
        with pytest.raises(UnusableList) as wrong:
            await reader.read(NOBODY, anew=False)
    assert text in str(wrong.value)
    assert "hunter" not in str(wrong.value)
    assert list(reader.addresses) == ["192.0.2.1"]
