"""The page: files of the package, read once. It needs no token: it holds nothing but code."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


class Page:
    """Serves `/` and the files that it names."""

    def __init__(self) -> None:
        folder = resources.files(__package__).joinpath("static")
        files = [file for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES]
        self._files = {file.name: file.read_bytes() for file in files}

    def add_to(self, app: web.Application) -> None:
        """Add the routes. A file that was not there when the broker started is not served."""
        for name in self._files:
            path = {"index.html": "/", "favicon.svg": "/favicon.ico"}.get(name, f"/page/{name}")
            app.router.add_get(path, self._handler(name))

    def _handler(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        data, kind = self._files[name], _TYPES[name.rpartition(".")[2]]
        tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'

        async def show(request: web.Request) -> web.Response:
            if request.headers.get("If-None-Match") == tag:
                return web.Response(status=304, headers={"ETag": tag})
            return web.Response(body=data, content_type=kind, charset="utf-8", headers={"ETag": tag})

        return show
