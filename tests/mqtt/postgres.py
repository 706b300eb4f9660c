"""A PostgreSQL for the tests, which nobody else sees: its socket is in a temporary directory, and it has no port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

# Nothing here must survive a power failure.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60")
_SOCKET = ".s.PGSQL.5432"


def programs() -> Path | None:
    """Where initdb and pg_ctl are. Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class Server:
    """A cluster with one database. `start` and `stop` may be called again and again."""

    def __init__(
        self,
        directory: Path,
        programs: Path,
        standby_of: Server | None = None,
        options: Iterable[str] = _FAST,
    ) -> None:
        self.directory = directory
        self._options = " ".join(f"-c {option}" for option in options)
        self._programs = programs
        # PostgreSQL does not run as root.
        self.user = None if os.getuid() else _another_user()
        if self.user is not None:
            os.chown(directory, self.user, -1)
        if standby_of is None:
            self._run(
                "initdb", "--auth=trust", "--username=tests", "--no-sync", "--no-locale", "--encoding=UTF8"
            )
        else:
            source = ("-h", standby_of.directory, "-U", "tests")
            self._run("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--no-sync", *source)

    def dsn(self, directory: Path | None = None) -> str:
        """The connection URI through the socket in `directory`."""
        return f"postgresql://tests@/postgres?host={quote(str(directory or self.directory), safe='')}"

    def start(self) -> None:
        log = self.directory / "log"
        self._run(
            "pg_ctl",
            "start",
            "--wait",
            "-l",
            log,
            "-o",
            f"-k {self.directory} -c listen_addresses='' {self._options}",
        )

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=fast")

    @property
    def runs(self) -> bool:
        return (self.directory / "data" / "postmaster.pid").exists()

    def kill(self) -> None:
        """Stop as if the power had failed."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def promote(self) -> None:
        """Make a standby the server that writes."""
        self._run("pg_ctl", "promote", "--wait")

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self._programs / program, *arguments, "-D", self.directory / "data"],
            user=self.user,
            cwd="/",
            stdout=subprocess.DEVNULL,
            check=True,
        )


@contextlib.contextmanager
def serving(
    programs: Path, standby_of: Server | None = None, options: Iterable[str] = _FAST
) -> Iterator[Server]:
    # Not pytest's own directory: nobody but its user may enter that.
    with tempfile.TemporaryDirectory(prefix="pg-") as directory:
        server = Server(Path(directory), programs, standby_of, options)
        server.start()
        try:
            yield server
        finally:
            if server.runs:
                server.stop()


def _another_user() -> int:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise AssertionError("root needs another user that PostgreSQL can run as")


class Link:
    """Stands between clients and the server, and cuts connections as a test says."""

    def __init__(self, target: Path, directory: Path) -> None:
        self.directory = directory
        self.cut_at: Callable[[bytes], bool] = lambda _: False
        """Looks at what a client sends. It is delivered, but the connection ends before the answer comes back."""
        self.cuts = 0
        self.accepts = True
        self.delay = 0.0
        """Seconds for which everything that a client sends is held back, as on a slow network."""
        self._target = target / _SOCKET
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """End every connection, and wait for it."""
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.accepts:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        down = asyncio.create_task(_copy(up_reader, writer))
        try:
            while chunk := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.cut_at(chunk):
                    self.cuts += 1
                    down.cancel()
                    await asyncio.wait([down])
                    up_writer.write(chunk)
                    await up_reader.read(65536)  # the server has done it
                    return
                up_writer.write(chunk)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            down.cancel()
            for end in (writer, up_writer):
                end.close()
            await asyncio.wait([down])


@contextlib.asynccontextmanager
async def linked(server: Server) -> AsyncIterator[Link]:
    """A link to the server, through a socket of its own."""
    with tempfile.TemporaryDirectory(prefix="pg-link-") as directory:
        link = Link(server.directory, Path(directory))
        listening = await asyncio.start_unix_server(link.serve, Path(directory) / _SOCKET)
        try:
            yield link
        finally:
            listening.close()
            await link.end()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
        writer.close()


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    """A connection of asyncpg."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()
