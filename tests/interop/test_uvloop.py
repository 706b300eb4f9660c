"""What takes the Listener as a socket fails on uvloop at once, with a message that names the way that works.

uvloop would take the connections from the kernel, before their header is read, and serve nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from interop.pages import DOCS, read, run_example

if TYPE_CHECKING:
    from proxyproto_rs import Listener

EXAMPLES = [
    ("howto/asyncio.md", "asyncio-sock"),
    ("howto/asyncio.md", "asyncio-protocols-sock"),
    ("howto/web.md", "uvicorn"),
    ("howto/web.md", "hypercorn"),
    ("howto/web.md", "aiohttp"),
    ("howto/web.md", "websockets"),
    ("howto/trio.md", "anyio-listener"),
]


@pytest.mark.parametrize(("page", "name"), EXAMPLES, ids=[name for _, name in EXAMPLES])
def test_a_listener_as_a_socket_is_refused_at_once(page: str, name: str, listener: Listener) -> None:
    main = run_example(page, name)["main"]
    with pytest.raises(RuntimeError, match=r"listener\.create_server\(protocol_factory\)") as caught:
        anyio.run(main, listener, backend_options={"use_uvloop": True})
    assert f"RuntimeError: {caught.value}" in read("howto/asyncio.md"), f"{DOCS} shows another text"
