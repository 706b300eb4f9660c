"""Readers of a header in Python, and how each is asked for the client's host and port."""

from __future__ import annotations

import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hand_written
from aiosmtpd.proxy_protocol import get_proxy
from gunicorn.config import Config
from gunicorn.http.message import Request
from proxyprotocol.detect import ProxyProtocolDetect
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser

import proxyproto_rs

if TYPE_CHECKING:
    from collections.abc import Callable


def headers() -> dict[str, tuple[bytes, bool]]:
    """Return the headers of headers.txt, and whether they have TLVs."""
    lines = Path(__file__).with_name("headers.txt").read_text().splitlines()
    fields = (line.split() for line in lines if not line.startswith("#"))
    return {name: (bytes.fromhex(data), kind == "tlvs") for name, data, kind in fields}


_detect = ProxyProtocolDetect()


def icgood(data: bytes) -> Any:
    return getattr(_detect.unpack(data), "source", None)


class _Bytes:
    """The stream that aiosmtpd reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, n: int = -1) -> bytes:
        taken, self._data = self._data[:n], self._data[n:]
        return taken

    readexactly = read

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        return await self.read(self._data.index(separator) + len(separator))


def aiosmtpd(data: bytes) -> Any:
    # It never waits for anything here. So it runs without a loop, and no loop is measured.
    coroutine = get_proxy(_Bytes(data))
    try:
        coroutine.send(None)
    except StopIteration as returned:
        found = returned.value
        if not found.valid:
            raise ValueError(found.error) from None
        return None if found.src_addr is None else (found.src_addr, found.src_port)
    raise AssertionError("it waits")


class _Request(Request):
    """gunicorn's parser, which reads only the header here."""

    def __init__(self) -> None:
        self.cfg = _gunicorn_config
        self.peer_addr = ("127.0.0.1", 1)


_gunicorn_config = Config()
_gunicorn_config.set("proxy_protocol", "auto")
_gunicorn_config.set("proxy_allow_ips", "*")


def gunicorn(data: bytes) -> Any:
    request = _Request()
    request._handle_proxy_protocol(None, bytearray(data), "auto")
    info = request.proxy_protocol_info
    return info["client_addr"] and (info["client_addr"], info["client_port"])


def twisted(data: bytes) -> Any:
    # Twisted's wrapper does this with the first bytes of a connection.
    parser = V2Parser() if data[:12] == V2Parser.PREFIX else V1Parser()
    info, _ = parser.feed(data)
    return info.source


class Reader:
    """Return a statement that reads `data`, and the names that it uses. None of our code stands around the call."""

    def __init__(self, statement: str, **names: Any) -> None:
        self._statement = statement
        self._names = names

    def timer(self, data: bytes, clock: Callable[[], float]) -> timeit.Timer:
        return timeit.Timer(self._statement, timer=clock, globals={"data": data, **self._names})

    def understands(self, data: bytes) -> bool:
        try:
            exec(self._statement, {"data": data, **self._names})
        except Exception:  # each has its own
            return False
        return True


READERS = {
    "ours": Reader("header, length = parse(data); header.source", parse=proxyproto_rs.parse),
    "by hand": Reader("source, destination, length = parse(data)", parse=hand_written.parse),
    "by hand, source only": Reader("source, length = parse(data)", parse=hand_written.parse_source),
    "icgood": Reader("read(data)", read=icgood),
    "aiosmtpd": Reader("read(data)", read=aiosmtpd),
    "gunicorn": Reader("read(data)", read=gunicorn),
    "twisted": Reader("read(data)", read=twisted),
}
