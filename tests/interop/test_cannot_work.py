"""A server that would accept from the kernel, before the header is read, fails at once. None seems to serve and does not.

On uvloop the error names what works instead.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import anyio
import pytest
import trio

from interop.pages import run_example, text

if TYPE_CHECKING:
    from interop.certificates import Certificates
    from proxyproto_rs import Listener

EXAMPLES = [
    ("howto/asyncio.md", "asyncio-sock"),
    ("howto/asyncio.md", "asyncio-protocols-sock"),
    ("howto/web.md", "hypercorn"),
    ("howto/web.md", "aiohttp"),
    ("howto/web.md", "websockets"),
]


@pytest.mark.parametrize(("page", "name"), EXAMPLES, ids=[name for _, name in EXAMPLES])
def test_a_listener_as_a_socket_is_refused_at_once(page: str, name: str, listener: Listener) -> None:
    main = run_example(page, name)["main"]
    with pytest.raises(RuntimeError, match=r"listener\.create_server\(protocol_factory\)") as caught:
        anyio.run(main, listener, backend_options={"use_uvloop": True})
    assert f"RuntimeError: {caught.value}" == text("howto/asyncio.md", "uvloop")


def test_the_fd_of_a_listener_is_no_socket(listener: Listener) -> None:
    with pytest.raises(OSError, match="non-socket"):
        socket.socket(fileno=listener.fileno())


def test_a_listener_is_no_socket_of_trios(listener: Listener) -> None:
    with pytest.raises(TypeError, match="Listener"):
        trio.socket.from_stdlib_socket(listener)


def test_a_listener_cannot_be_wrapped_in_tls(listener: Listener, certs: Certificates) -> None:
    with pytest.raises(OSError, match="non-socket"):
        certs.server_context().wrap_socket(listener, server_side=True)
