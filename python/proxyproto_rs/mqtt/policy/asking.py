"""Asks who knows the passwords before anything is sent upstream: the sources of `auth`, in their order."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from ..config.rules import import_callable
from ..model.reasons import Refuse
from .password_checker import PasswordChecker
from .password_table import GoodLogins
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from ..config import AuthConfig, HttpAuthConfig
    from ..model.login import Login


_MOST_KNOWN = 100_000


class Source(Protocol):
    """One that may know a user."""

    async def ask(self, login: Login, *, is_known: bool) -> bool | None:
        """Return whether the login is good, or None if the user is unknown here. `is_known` lets it wait less.

        Raises Refuse (`auth-error`, `busy`).
        """

    async def close(self) -> None:
        """Let go of what it holds."""


class Asking:
    """The sources of a configuration. `decide` asks them.

    A source that takes its time has a queue, fair by the clients' real addresses. Logins that it remembers do not queue.
    A user who has logged in from the same address before goes before strangers, so that no storm of these keeps it out.
    """

    def __init__(self, sources: Sequence[Source], queues: Sequence[Turns]) -> None:
        self._sources = sources
        self._queues = queues
        self._known: dict[
            tuple[str, str], None
        ] = {}  # address and user of good logins, the last one at the end

    @classmethod
    async def open(
        cls,
        auth: Sequence[AuthConfig],
        clock: Callable[[], float],
        patience: float,
        at_once: int = 16,
    ) -> Self | None:
        """Open the sources. None if only the servers are asked. Raises PasswordFileError.

        `patience` is how long a login may wait for its turns, in seconds. `at_once` is how many are asked of a web
        service or of a plugin at the same time.
        """
        if all(source.upstream for source in auth):
            return None
        queueing = sum(
            1 for one in auth if one.file is not None or one.http is not None or one.plugin is not None
        )
        patience /= max(1, queueing)  # in each queue, so that all together are not longer
        async with contextlib.AsyncExitStack() as undo:
            sources, queues = [], []
            for one in auth:
                queue = Turns(at_once, clock=clock)
                source = await _open(one, clock, patience, queue, is_last=one is auth[-1])
                undo.push_async_callback(source.close)
                sources.append(source)
                queues.append(queue)
            undo.pop_all()
            return cls(sources, queues)

    def _remember(self, who: tuple[str, str]) -> None:
        self._known.pop(who, None)
        self._known[who] = None
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def change(self, at_once: int) -> None:
        """Let so many logins be asked of a source at the same time, from now on."""
        for queue in self._queues:
            queue.resize(at_once)

    async def decide(self, login: Login) -> bool:
        """Return whether the login is good here already. False leaves it to the server behind.

        Raises:
            Refuse: `bad-credentials`, `auth-error`, `busy`.
        """
        who = (login.connection.client[0], login.username or "")
        is_known = who in self._known
        for source in self._sources:
            if isinstance(source, _Upstream):
                return False
            answer = await source.ask(login, is_known=is_known)
            if answer is False:
                raise Refuse("bad-credentials", "user name or password is wrong")
            if answer is not None:
                self._remember(who)
                return True
        raise Refuse("bad-credentials", "nobody knows the user")

    async def close(self) -> None:
        """Close all sources. Those that wait for their turn are refused."""
        for queue in self._queues:
            queue.close()
        for source in self._sources:
            await source.close()


async def _open(
    auth: AuthConfig, clock: Callable[[], float], patience: float, queue: Turns, *, is_last: bool
) -> Source:
    if auth.file is not None:
        return _File(await asyncio.to_thread(PasswordChecker, auth.file), patience, is_last=is_last)
    if auth.http is not None:
        return await _Http.open(auth.http, clock, queue, patience)
    if auth.plugin is not None:
        return _Plugin(auth.plugin, queue, patience)
    return _Upstream() if auth.upstream else _Anonymous()


def password_text(login: Login) -> str:
    """Return the password as text. Raises Refuse if it is none: a repaired text would be another password."""
    try:
        return (login.connect.password or b"").decode()
    except UnicodeDecodeError:
        raise Refuse("bad-credentials", "the password is not UTF-8") from None


class _File:
    def __init__(self, passwords: PasswordChecker, patience: float, *, is_last: bool) -> None:
        self._passwords = passwords
        self._patience = patience
        self._is_last = is_last

    async def ask(self, login: Login, *, is_known: bool) -> bool | None:
        if not login.username:
            return None
        if not self._is_last and not self._passwords.knows_user(login.username):
            return None  # the last one checks whom it does not know too: an answer at once would tell who is known
        return await self._passwords.check(
            login.username,
            password_text(login),
            address=login.connection.client[0],
            patience=self._patience,
            is_known=is_known,
        )

    async def close(self) -> None:
        await self._passwords.close()


class _Http:
    """Asks a web service: POST with a JSON object, answered by 204, or by 200 and `{"result": "allow"|"deny"|"ignore"}`."""

    def __init__(
        self, config: HttpAuthConfig, session: Any, clock: Callable[[], float], queue: Turns, patience: float
    ) -> None:
        self._config = config
        self._session = session
        self._clock = clock
        self._queue = queue
        self._patience = patience
        self._good = GoodLogins(config.remember)

    @classmethod
    async def open(
        cls, config: HttpAuthConfig, clock: Callable[[], float], queue: Turns, patience: float
    ) -> _Http:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=config.timeout)
        return cls(config, aiohttp.ClientSession(timeout=timeout), clock, queue, patience)

    async def ask(self, login: Login, *, is_known: bool) -> bool | None:
        question: dict[str, Any] = {
            "clientId": login.connect.client_id,
            "username": login.username,
            "password": password_text(login),
            "ipAddress": login.connection.client[0],
            "port": login.connection.client[1],
            "listener": login.connection.listener,
            "mqttVersion": login.connect.mqtt_version,
        }
        # Whatever the service may have judged by, but the port, which is new for each connection.
        who = "\0".join((login.username or "", question["clientId"], question["ipAddress"]))
        fingerprint = self._good.fingerprint(who, str(question["password"]), login.connection.listener)
        if self._good.knows(who, fingerprint, self._clock()):
            return True
        async with self._queue.taken(question["ipAddress"], self._patience, is_known=is_known):
            answer = await self._answer(question)
        if answer:
            self._good.remember(who, fingerprint, self._clock())
        return answer

    async def _answer(self, question: dict[str, Any]) -> bool | None:
        import aiohttp

        try:
            async with self._session.post(self._config.url, json=question) as response:
                if response.status == HTTPStatus.NO_CONTENT:
                    return True
                if response.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    return False
                if response.status != HTTPStatus.OK:
                    raise Refuse("auth-error", f"{self._config.url} answered {response.status}")
                said = await response.json(content_type=None)
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as wrong:
            raise Refuse("auth-error", f"{self._config.url}: {wrong or type(wrong).__name__}") from None
        answers: dict[Any, bool | None] = {"allow": True, "deny": False, "ignore": None}
        result = said.get("result") if isinstance(said, dict) else None
        if result not in answers:
            raise Refuse("auth-error", f"{self._config.url} gave no result of allow, deny or ignore")
        return answers[result]

    async def close(self) -> None:
        await self._session.close()


class _Plugin:
    """Calls a function with the login. It may be a coroutine function, and returns True, False or None."""

    def __init__(self, name: str, queue: Turns, patience: float) -> None:
        self._name = name
        self._call: Any = import_callable(name)
        self._queue = queue
        self._patience = patience

    async def ask(self, login: Login, *, is_known: bool) -> bool | None:
        async with self._queue.taken(login.connection.client[0], self._patience, is_known=is_known):
            return await self._answer(login)

    async def _answer(self, login: Login) -> bool | None:
        try:
            answer = self._call(login)
            if inspect.isawaitable(answer):
                answer = await answer
        except Refuse:
            raise
        except Exception as wrong:
            raise Refuse("auth-error", f"{self._name} failed: {wrong!r}") from wrong
        if answer not in (True, False, None):
            raise Refuse(
                "auth-error", f"{self._name} returned {type(answer).__name__}, not True, False or None"
            )
        return answer if answer is None else bool(answer)

    async def close(self) -> None:
        pass


class _Anonymous:
    """Lets in whoever gives no user name."""

    async def ask(self, login: Login, *, is_known: bool) -> bool | None:  # noqa: ARG002
        return None if login.username else True

    async def close(self) -> None:
        pass


class _Upstream:
    """Stands for the server behind, which is asked by being sent the CONNECT."""

    async def ask(self, login: Login, *, is_known: bool) -> bool | None:  # noqa: ARG002
        return None

    async def close(self) -> None:
        pass
