"""The broker as one object. The command line and a web interface do everything through it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, get_args

from typing_extensions import Self

from proxyproto_rs import AddressSet, ListenerStats

from .config import BrokerConfig, ConfigError, Loaded, Problem
from .config.broker import refuse_unusable
from .config.reload import changed_sections, refuse_what_needs_a_restart
from .front.front import Front
from .front.gate import Gate
from .front.servers import Servers
from .listening import Listening
from .model.connection import Connection
from .model.login import Login
from .model.session_record import SessionRecord
from .policy.access import AccessRules
from .policy.checks import Checks
from .policy.password_checker import reread_password_files
from .policy.password_table import PasswordFileError
from .readiness import Readiness
from .store.nodes import Node, NodeCounts
from .store.opening import open_store
from .store.protocol import Store
from .tables.blocklists.blocklists import Blocklists
from .tables.blocks.auto_block import AutoBlock
from .tables.blocks.blocked import Blocked
from .tables.session_query import SLICE
from .tables.sessions import Sessions
from .tables.shared_sessions import SharedSessions
from .tables.unauthorized import Unauthorized
from .tables.wakeup import Wakeup
from .telling.analytics import Analytics, By, Minute, TopEntry, rank
from .telling.audit import AuditEvent, AuditLog
from .telling.block_consequences import BlockConsequences
from .telling.certificate_expiry import expiry_of
from .telling.feed import Feed
from .telling.last_refusals import LastRefusals
from .telling.metrics import Metrics
from .telling.moves import Moves
from .telling.recorder import Recorder
from .telling.sources import BrokerSources
from .telling.watched_store import Watched, watching

if TYPE_CHECKING:
    from .http.server import HttpServer

logger: logging.Logger = logging.getLogger("proxyproto_rs.mqtt")

_HOUSEKEEPING = 1.0  # seconds in a round
_SAMPLE_EVERY, _SWEEP_EVERY = 15, 60  # rounds
_LONG = 3600.0  # seconds
_TOLD_TOP = 200  # addresses of each kind that other nodes are told of


class BrokerService:
    """A broker with everything that its configuration names.

    Typical use::

        async with BrokerService(BrokerConfig.load("broker.yaml")) as service:
            await asyncio.Event().wait()  # it serves until the block is left

    Args:
        config: From `BrokerConfig.load`, or a `BrokerConfig` made with keywords of the file's shape.
        source: Reads the configuration again, for `reload()` without an argument. By default it is read as `config` was.
        store: Used instead of the store that the configuration names. It is closed at the end too.
    """

    broker: Any
    """amqtt's Broker. It exists once the service has started with `backend: amqtt`."""
    gate: Gate
    """The front of amqtt. It exists once the service has started with `backend: amqtt`."""
    front: Front
    """What decides about logins: `gate`, or the front of the embedded broker and of servers."""
    sessions: Sessions
    unauthorized: Unauthorized
    blocked: Blocked
    blocklists: Blocklists
    sources: BrokerSources
    """The numbers, for `collector.BrokerCollector`."""

    def __init__(
        self, config: BrokerConfig, *, source: Callable[[], Loaded] | None = None, store: Store | None = None
    ) -> None:
        self.config: BrokerConfig = config
        self.node_id: str = config.node_id or socket.gethostname()
        self.listening: dict[str, Listening] = {}
        """The open ports by the listener's name."""
        self.metrics: Metrics = Metrics()
        self.started_at: int = 0
        """Milliseconds since 1970."""
        self.feed: Feed = Feed()
        """Tells the audit log's events to whoever listens."""
        self.last_refusals: LastRefusals = LastRefusals()
        self.http: HttpServer | None = None
        """The API, if the configuration has the section `http`."""
        self._ticked = time.monotonic()
        self._watched = Watched()
        self._source = source
        self._given_store = store
        self._analytics = Analytics()
        self._told_top: dict[str, list[tuple[str, float]]] = {}
        self._shared: SharedSessions | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open everything, or nothing.

        Raises:
            ConfigError: The configuration cannot be used.
            StoreError: The store cannot be opened or written.
            OSError: A port is taken, or the audit file cannot be opened. The text names the key.
        """
        refuse_unusable(self.config)
        self.started_at = int(time.time() * 1000)
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        # Each Listener has logged its address, and whom it believes.
        logger.info("started listeners=%s", ",".join(sorted(self.listening)))
        self._audit.write("broker.started", listeners=sorted(self.listening))

    async def stop(self) -> None:
        """Stop accepting, end every connection, and close everything. A second call does nothing."""
        stack, self._stack = self._stack, contextlib.AsyncExitStack()
        await stack.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self.config
        self._audit = self._open_audit(config)
        stack.push_async_callback(self._close_audit)
        store = self._given_store or await open_store(config.store, config.store_file)
        stack.push_async_callback(store.close)
        self._clock, self._nodes = store.clock, store.nodes
        store = watching(store, self._watched)
        self.unauthorized = Unauthorized(store, config.unauthorized, clock=self._clock)
        self.blocked = Blocked(store, config.blocked, clock=self._clock)
        self._auto_block = AutoBlock(self.blocked, store, config.auto_block)
        self.blocklists = Blocklists(config.blocklists, proxies=self.blocked.proxies)
        self.blocklists.on_listed = self._end_listed
        self._checks = Checks(
            self.blocked, AccessRules(config.access), self.metrics.block_hits, self.blocklists.naming
        )
        self._recorder = self._make_recorder()
        self._moves = Moves(self._recorder)
        self._forbidding = Wakeup()
        self.blocked.events = BlockConsequences(self._recorder, self._end_forbidden)
        self._protect(config)
        self.front = self._make_front(config)
        self.sessions = self.front.sessions
        self.sessions.clock = self._clock
        self.sessions.operated = self.unauthorized.operated = self._recorder.operated
        self.listening = {
            name: Listening(
                listener,
                mqtt=config.mqtt,
                blocked=self.blocked,
                blocklists=self.blocklists,
                checks=self._checks,
                on_refused=self._recorder.refused_by_acceptor,
            )
            for name, listener in config.listeners.items()
        }
        await self.blocked.start()
        for open_port in self.listening.values():
            stack.callback(open_port.close)
            open_port.bind()
        await self._start_front(stack)
        await self._share_sessions(stack)
        self.sources = self._make_sources()
        self._readiness = Readiness(
            self.listening,
            self.sources,
            store,
            has_servers=config.backend.kind == "upstream",
            unread_lists=self.blocklists.unread,
        )
        self._keep_running(stack, "unauthorized clients", self.unauthorized.run())
        self._keep_running(stack, "blocked clients", self.blocked.run())
        self._keep_running(stack, "housekeeping", self._keep_house())
        self._keep_running(stack, "login failures", self._share_failures())
        self._keep_running(stack, "blocked sessions", self._end_forbidden_sessions())
        stack.push_async_callback(self._close_gate)
        for open_port in self.listening.values():
            assert open_port.listener is not None
            self.front.open(open_port.listener, open_port.door)
        self.blocklists.start()
        stack.push_async_callback(self.blocklists.stop)
        self._note_certificates(config)
        await self._start_http(stack)

    # Operators call these.

    def stats(self) -> Mapping[str, ListenerStats]:
        """Return the counts of connections by outcome, for each listener."""
        return {name: open_port.stats() for name, open_port in self.listening.items()}

    async def top(self, by: By = "connects", prefix: int = 32, limit: int = 20) -> tuple[TopEntry, ...]:
        """Return the busiest real addresses of all nodes that share the store, by connects, refused, sessions or bytes.

        Of other nodes their 200 busiest are known, as they were within 15 s; their bytes are those of ended connections.

        Raises:
            ValueError: There is no such `by` or `prefix`.
            StoreError: The store does not tell of the other nodes.
        """
        counted = self._counted(by)
        if by == "bytes":
            counted += await self._transferred_now()
        others = () if self._nodes is None else await self._nodes.list()
        counted += [entry for node in others if not node.is_this for entry in node.top.get(by, ())]
        return await asyncio.to_thread(rank, counted, prefix=prefix, limit=limit)

    def _counted(self, by: By) -> list[tuple[str, float]]:
        """Count without the bytes of open connections."""
        counted = self._analytics.counted(by, self._clock())
        return [*counted, *(self.sessions.addresses() if by == "sessions" else ())]

    async def _transferred_now(self) -> list[tuple[str, float]]:
        """Return the bytes of the open connections, with their addresses. The event loop gets a turn after each slice."""
        transferred: list[tuple[str, float]] = []
        for position, client in enumerate(self.sessions.clients(), 1):
            if position % SLICE == 0:
                await asyncio.sleep(0)
            traffic = client.traffic
            transferred.append((client.connection.client[0], traffic.bytes_in + traffic.bytes_out))
        return transferred

    async def nodes(self) -> tuple[Node, ...]:
        """Return the living nodes that share the store, this one included. Raises StoreError."""
        if self._nodes is not None:
            return await self._nodes.list()
        now = int(self._clock() * 1000)
        counts = self._counts()
        return (
            Node(self.node_id, self.started_at, now, counts.connected, counts.rows, counts.top, is_this=True),
        )

    async def history(self) -> tuple[Minute, ...]:
        """Return the last 24 hours, minute by minute."""
        self._sample()
        return self._analytics.history()

    def addresses(self) -> Mapping[str, str]:
        """Return where each listener listens, as `host:port`."""
        return {name: open_port.address() for name, open_port in self.listening.items()}

    def lag(self) -> float:
        """Return by how many seconds the event loop is late, or its housekeeping."""
        return max(0.0, time.monotonic() - self._ticked - _HOUSEKEEPING)

    async def not_ready(self) -> tuple[str, ...]:
        """Return what keeps the broker from serving clients as it should; nothing if it is ready."""
        return await self._readiness.missing()

    def audited(self, event: AuditEvent, **fields: Any) -> None:
        """Write a line into the audit log."""
        self._audit.write(event, **fields)

    async def reload(self, loaded: Loaded | None = None) -> tuple[str, ...]:
        """Put a new configuration in force, all of it or nothing. Return the names of the changed sections.

        Without an argument it reads the file again that `BrokerConfig.load` has read.

        Raises:
            ValueError: There is no argument, and the configuration did not come from a file.
            ConfigError: It is wrong, or changes something that needs a restart. The old one stays.
            OSError: The new audit file cannot be opened. The old one stays.
        """
        try:
            if loaded is None:
                loaded_from = self.config.loaded_from
                source = self._source or (None if loaded_from is None else loaded_from.load)
                if source is None:
                    raise ValueError(
                        "reload() needs a configuration: this one was made in code, and came from no file"
                    )
                loaded = source()
            use_passwords = await asyncio.to_thread(reread_password_files)
            changed = self._reload(loaded, use_passwords)
        except ConfigError as wrong:
            self.metrics.reloaded(good=False)
            located = wrong if loaded is None else loaded.located(wrong)
            self._audit.write("config.rejected", detail=str(located))
            raise located from None
        except OSError as wrong:
            self.metrics.reloaded(good=False)
            self._audit.write("config.rejected", detail=str(wrong))
            raise
        self.metrics.reloaded(good=True)
        self._audit.write("config.reloaded", changed=changed)
        self._note_certificates(self.config)
        self._end_forbidden()
        await self.blocklists.change(self.config.blocklists)
        return changed

    def _reload(self, loaded: Loaded, use_passwords: list[Callable[[], None]]) -> tuple[str, ...]:
        old, new = self.config, loaded.config
        refuse_unusable(new)
        refuse_what_needs_a_restart(old, loaded)
        channels = {
            name: self.listening[name].prepare(listener, new.mqtt) for name, listener in new.listeners.items()
        }
        rules = AccessRules(new.access)
        http = None if self.http is None else self.http.prepare(new)
        audit = self._open_audit(new) if new.audit != old.audit else None
        # Nothing below can fail.
        for use in use_passwords:
            use()
        for name, listener in new.listeners.items():
            self.listening[name].change(listener, channels[name])
        if audit is not None:
            replaced, self._audit = self._audit, audit
            self._recorder.audit = self.sources.audit = audit
            # The old log may have to write its queue first. Nobody waits for that.
            asyncio.get_running_loop().run_in_executor(None, replaced.close)
        self._audit.reopen()
        if self.http is not None and http is not None:
            self.http.change(http)
        self._checks.rules = rules
        if isinstance(self.front, Servers):
            self.front.change(new)
        else:
            self.gate.change(new.mqtt, new.limits)
        self.unauthorized.config = new.unauthorized
        self.blocked.config = new.blocked
        self._auto_block.config = new.auto_block
        self.config = new
        self._protect(new)
        for warning in loaded.warnings:
            logger.warning("%s", warning)
        return changed_sections(old, new)

    # who may stay

    def _is_forbidden(self, session: SessionRecord) -> bool:
        return self._forbids(session.connection, session.client_id, session.username)

    def _is_forbidden_to_enter(self, login: Login) -> bool:
        return self._forbids(login.connection, login.connect.client_id, login.username)

    def _forbids(self, connection: Connection, client_id: str, username: str | None) -> bool:
        address = connection.client[0]
        if connection.is_proxy_itself:
            return False
        return self.listening[connection.listener].forbids(address) or self._checks.forbid(
            client_id, username, connection.listener, address
        )

    def _end_forbidden(self) -> None:
        self.front.end_logins("blocked", self._is_forbidden_to_enter)
        self._forbidding.set()

    async def _end_forbidden_sessions(self) -> None:
        """End the sessions that are no longer allowed, as often as the rules change.

        Changes that come meanwhile wait for the next look, so a storm of blocks costs one look at a time.
        """
        while True:
            if await self._forbidding.wait(_LONG):
                self._forbidding.clear()
                await self.sessions.end_where("blocked", self._is_forbidden)

    async def _end_listed(self, name: str, addresses: AddressSet) -> int:
        """End the sessions of the clients that a list keeps out. Return how many there were."""

        def is_listed(connection: Connection) -> bool:
            try:
                return not connection.is_proxy_itself and connection.client[0] in addresses
            except ValueError:  # the path of a UNIX socket
                return False

        # Nobody comes in between these two: the acceptors know the list, and so do the checks.
        self.front.end_logins("blocked", lambda login: is_listed(login.connection))
        return await self.sessions.end_where(
            "blocked", lambda session: is_listed(session.connection), f"by blocklist {name}"
        )

    def _protect(self, config: BrokerConfig) -> None:
        proxies = [
            network for listener in config.listeners.values() for network in listener.proxy.trusted or ()
        ]
        for listener in config.listeners.values():
            if listener.ws is not None and listener.ws.forwarded is not None:
                proxies += listener.ws.forwarded.trusted
        self.blocked.protect(proxies)
        self.blocked.keep_automatic = config.auto_block.forget

    # the parts

    def _open_audit(self, config: BrokerConfig) -> AuditLog:
        try:
            return AuditLog(config.audit.file, node=self.node_id, feed=self.feed)
        except OSError as wrong:
            text = wrong.strerror or str(wrong)
            raise OSError(wrong.errno, f"audit.file: {config.audit.file}: {text}") from None

    def _make_recorder(self) -> Recorder:
        return Recorder(
            node_id=self.node_id,
            clock=self._clock,
            ahead=lambda: self._clock() - time.time(),
            unauthorized=self.unauthorized,
            blocked=self.blocked,
            auto_block=self._auto_block,
            audit=self._audit,
            metrics=self.metrics,
            analytics=self._analytics,
            last_refusals=self.last_refusals,
            blocklist=self.blocklists.naming,
        )

    async def _start_http(self, stack: contextlib.AsyncExitStack) -> None:
        self.http = None
        if not self.config.serves_http:
            return
        from .http.server import HttpServer

        self.http = HttpServer(self, self.config)
        self.feed.keeps = True
        stack.push_async_callback(self.http.close)
        await self.http.start(self.config)

    def _make_front(self, config: BrokerConfig) -> Front:
        checks = (self._checks.connect,)
        if config.backend.kind != "amqtt":
            return Servers(config, checks=checks, observer=self._moves, node_id=self.node_id)
        from .backend.amqtt.backend import AmqttBackend
        from .backend.amqtt.shared import broker_of

        self.broker = broker_of(config.amqtt, config.listeners)
        self.gate = Gate(
            AmqttBackend(self.broker),
            mqtt=config.mqtt,
            limits=config.limits,
            checks=checks,
            observer=self._moves,
            node_id=self.node_id,
            session_expiry=config.amqtt.session_expiry_interval,
            workers=config.workers,
        )
        return self.gate

    async def _start_front(self, stack: contextlib.AsyncExitStack) -> None:
        """Start what serves clients. It is stopped by `_close_gate`, which is pushed later, and by what is pushed here."""
        if isinstance(self.front, Gate):
            await self.front.backend.start()
            stack.push_async_callback(self.front.backend.stop)
        try:
            await self.front.start()
        except PasswordFileError as wrong:
            raise ConfigError([Problem("", ("auth",), str(wrong))]) from None
        stack.push_async_callback(self.front.close)
        if isinstance(self.front, Servers) and self.front.cluster_node is not None:
            self._moves.expect(self.front.cluster_node.moved)

    async def _share_sessions(self, stack: contextlib.AsyncExitStack) -> None:
        if self._nodes is None:
            return
        self._shared = SharedSessions(
            self._nodes,
            self.sessions,
            self.node_id,
            self._counts,
            # Servers behind keep their sessions when this process ends; a broker inside does not.
            outlives=self.config.backend.kind == "upstream",
        )
        self._shared.has_moved = self._moves.moved
        self._moves.expect(self._shared.moved)
        self.sessions.elsewhere = self._shared
        await self._shared.start()
        stack.push_async_callback(self._shared.stop)
        self._keep_running(stack, "shared sessions", self._shared.run())

    def _counts(self) -> NodeCounts:
        if not self._told_top:  # at the start, when there are no clients yet
            self._told_top = _busiest(self._counted_all())
        return NodeCounts(self.sessions.connected, len(self.sessions), self._told_top)

    async def _count_top(self) -> None:
        """Count without the bytes of open connections: asking for each takes too long for a node of 100,000."""
        self._told_top = await asyncio.to_thread(_busiest, self._counted_all())

    def _counted_all(self) -> dict[str, list[tuple[str, float]]]:
        return {by: self._counted(by) for by in get_args(By)}

    def _make_sources(self) -> BrokerSources:
        return BrokerSources(
            metrics=self.metrics,
            sessions=self.sessions,
            stats=self.stats,
            unauthorized=self.unauthorized,
            blocked=self.blocked,
            blocklists=self.blocklists,
            auto_block=self._auto_block,
            audit=self._audit,
            store=self._watched,
            relayed=self.front.numbers,
            embedded=self.front.embedded_numbers,
        )

    def _note_certificates(self, config: BrokerConfig) -> None:
        files = {name: listener.tls for name, listener in config.listeners.items() if listener.tls_here}
        if config.serves_http:
            files["http"] = config.http.tls
        self.metrics.certificates = {
            name: expiry
            for name, tls in files.items()
            if tls is not None
            and tls.certfile is not None
            and (expiry := expiry_of(tls.certfile)) is not None
        }

    def _sample(self) -> None:
        transferred = self.sources.transferred().values()
        self._analytics.sample(self.sessions.connected, sum(map(sum, transferred)), self._clock())

    async def _keep_house(self) -> None:
        turn = 0
        self._ticked = time.monotonic()
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            self._ticked = time.monotonic()
            turn += 1
            self._recorder.flush()
            if turn % _SAMPLE_EVERY == 0:
                self._sample()
                await self._count_top()
            if turn % _SWEEP_EVERY == 0:
                await self.sessions.sweep()

    async def _share_failures(self) -> None:
        """Share in a task of its own: a store that does not answer must not hold the housekeeping up."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            if self.config.auto_block.enabled:
                await self._auto_block.share(self._clock())

    def _keep_running(
        self, stack: contextlib.AsyncExitStack, what: str, work: Coroutine[Any, Any, None]
    ) -> None:
        task = asyncio.create_task(work, name=f"proxyproto-rs {what}")
        task.add_done_callback(_told_if_it_failed)
        stack.push_async_callback(_cancelled, task)

    async def _close_gate(self) -> None:
        self._audit.write("broker.stopping")
        for open_port in self.listening.values():
            open_port.close()
        await self.front.close()
        await self._moves.close()
        self._recorder.flush(everything=True)

    async def _close_audit(self) -> None:
        await asyncio.to_thread(self._audit.close)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _told_if_it_failed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("%s has stopped, a fault of the broker", task.get_name(), exc_info=task.exception())


def _busiest(counted: Mapping[str, list[tuple[str, float]]]) -> dict[str, list[tuple[str, float]]]:
    return {
        by: [(entry.address, entry.count) for entry in rank(counts, limit=_TOLD_TOP)]
        for by, counts in counted.items()
    }
