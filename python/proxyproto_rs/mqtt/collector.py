"""The broker's counters for Prometheus. No label holds a client id or an address, because strangers choose those."""

from __future__ import annotations

import math
import platform
import time
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from proxyproto_rs import __version__
from proxyproto_rs.metrics import families

from .model.packet_types import PACKET_TYPES
from .model.reasons import DISCONNECT_REASONS, REASONS
from .model.records import BLOCK_TYPES, BY_LIST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from proxyproto_rs import ListenerStats
    from proxyproto_rs._core import _ServerNumbers

    from .tables.blocklists.blocklists import BlocklistState
    from .telling.metrics import Metrics
    from .telling.watched_store import Watched


_EMBEDDED: Mapping[str, tuple[type[CounterMetricFamily | GaugeMetricFamily], str]] = {
    "sessions": (GaugeMetricFamily, "Sessions of the embedded broker, those of clients that are away too"),
    "subscriptions": (GaugeMetricFamily, "Subscriptions of the embedded broker"),
    "retained": (GaugeMetricFamily, "Retained messages of the embedded broker"),
    "dropped": (
        CounterMetricFamily,
        "Messages left out for a client, whose queue was full or which had expired",
    ),
    "not_retained": (
        CounterMetricFamily,
        "Messages that were not retained, because max_retained was reached",
    ),
    "strangers": (CounterMetricFamily, "Programs of this machine that have found the embedded broker's port"),
}
"""What `_core.Broker.stats` counts, and its metrics."""

_UNUSED = frozenset({PACKET_TYPES[0]})
"""The type that MQTT forbids. It is shown if a client has sent it."""


class Sources(Protocol):
    """Where the collector reads its numbers, at each scrape."""

    @property
    def metrics(self) -> Metrics:
        """The counters that no other part keeps."""

    def stats(self) -> Mapping[str, ListenerStats]:
        """The counts of each listener's acceptor."""

    def sessions(self) -> Mapping[tuple[str, str], int]:
        """The number of sessions, by listener and state (`connected`, `disconnected`)."""

    def transferred(self) -> Mapping[str, tuple[int, int]]:
        """Bytes in and out by listener, with those of open connections."""

    def blocked(self) -> Mapping[str, int]:
        """The number of active blocks, by type."""

    @property
    def store(self) -> Watched:
        """How the store's calls went."""

    def blocklist_age(self) -> float:
        """How many seconds ago the blocks of other nodes were read."""

    def blocklists(self) -> Sequence[BlocklistState]:
        """The lists of networks that others name."""

    def servers(self) -> Sequence[_ServerNumbers]:
        """The servers behind, if there are any."""

    def embedded(self) -> Mapping[str, int]:
        """What the embedded broker counts, if there is one."""

    def totals(self) -> Mapping[str, int]:
        """The totals `unauthorized_clients`, `unauthorized_dropped`, `auto_blocks` and `audit_dropped`."""


class BrokerCollector(Collector):
    """Reads all numbers once for each scrape. `sessions` are counted already, if they are given."""

    def __init__(self, sources: Sources, sessions: Mapping[tuple[str, str], int] | None = None) -> None:
        self._sources = sources
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. prometheus_client calls this for each scrape."""
        yield from families(self._sources.stats())
        yield from self._clients()
        yield from self._traffic()
        yield from self._tables()
        yield from self._upstream()
        yield from self._embedded()
        yield from self._operation()

    def _clients(self) -> Iterator[Metric]:
        metrics = self._sources.metrics
        names = list(metrics.listeners)
        results = ("accepted", *REASONS)
        connects = _from_zero(names, results) | metrics.connects
        yield _counter("connects", "CONNECTs by result", ("listener", "result"), connects)
        ends = _from_zero(names, DISCONNECT_REASONS) | metrics.disconnects
        yield _counter("disconnects", "Ended connections by reason", ("listener", "reason"), ends)
        sessions = GaugeMetricFamily("proxyproto_mqtt_sessions", "Sessions", labels=("listener", "state"))
        states = _from_zero(names, ("connected", "disconnected"))
        states.update(self._sources.sessions() if self._sessions is None else self._sessions)
        for labels, count in states.items():
            sessions.add_metric(labels, count)
        yield sessions
        seconds = HistogramMetricFamily(
            "proxyproto_mqtt_connect_seconds",
            "From the accepted connection to its CONNACK",
            labels=("listener",),
        )
        for listener, counts in metrics.listeners.items():
            histogram = counts.connect_seconds
            seconds.add_metric((listener,), histogram.cumulative(), histogram.total)
        yield seconds
        auth = metrics.auth_seconds
        yield HistogramMetricFamily(
            "proxyproto_mqtt_auth_seconds",
            "How long the auth plugins took",
            buckets=auth.cumulative(),
            sum_value=auth.total,
        )

    def _traffic(self) -> Iterator[Metric]:
        labels = ("listener", "direction")
        transferred = CounterMetricFamily("proxyproto_mqtt_bytes", "Bytes of MQTT connections", labels=labels)
        for listener, (bytes_in, bytes_out) in self._sources.transferred().items():
            transferred.add_metric((listener, "in"), bytes_in)
            transferred.add_metric((listener, "out"), bytes_out)
        yield transferred
        packets = CounterMetricFamily("proxyproto_mqtt_packets", "MQTT packets", labels=(*labels, "type"))
        for listener, counts in self._sources.metrics.listeners.items():
            for direction, by_type in (("in", counts.packets_in), ("out", counts.packets_out)):
                for name, count in zip(PACKET_TYPES, by_type, strict=True):
                    if count or name not in _UNUSED:
                        packets.add_metric((listener, direction, name), count)
        yield packets
        denied = dict.fromkeys(("publish", "subscribe"), 0) | self._sources.metrics.acl_denied
        yield _counter("acl_denied", "Topics denied", ("action",), {(key,): n for key, n in denied.items()})
        yield CounterMetricFamily(
            "proxyproto_mqtt_publish_delays",
            "How often limits.publish delayed a publisher",
            value=self._sources.metrics.publish_delays,
        )

    def _tables(self) -> Iterator[Metric]:
        totals = self._sources.totals()
        yield GaugeMetricFamily(
            "proxyproto_mqtt_unauthorized_clients",
            "Rows in the table of refused clients",
            value=totals["unauthorized_clients"],
        )
        blocked = GaugeMetricFamily("proxyproto_mqtt_blocked_clients", "Active blocks", labels=("type",))
        for kind, count in self._sources.blocked().items():
            blocked.add_metric((kind,), count)
        yield blocked
        hits = dict.fromkeys((*map(str, BLOCK_TYPES), BY_LIST), 0) | self._sources.metrics.block_hits
        yield _counter(
            "block_hits", "Clients refused by a block", ("type",), {(key,): n for key, n in hits.items()}
        )
        for name, text in (
            ("unauthorized_dropped", "Refusals that no row of the table counts"),
            ("auto_blocks", "Automatic blocks"),
            ("audit_dropped", "Audit lines that could not be written"),
        ):
            yield CounterMetricFamily(f"proxyproto_mqtt_{name}", text, value=totals[name])

    def _upstream(self) -> Iterator[Metric]:
        servers = self._sources.servers()
        if not servers:
            return
        labels = ("server",)
        up = GaugeMetricFamily(
            "proxyproto_mqtt_upstream_up", "Whether the server answers its checks", labels=labels
        )
        connections = GaugeMetricFamily(
            "proxyproto_mqtt_upstream_connections", "Clients of the server", labels=labels
        )
        seconds = SummaryMetricFamily(
            "proxyproto_mqtt_upstream_connect_seconds",
            "From connecting to the server's CONNACK",
            labels=labels,
        )
        failures = CounterMetricFamily(
            "proxyproto_mqtt_upstream_failures", "CONNECTs that the server has not answered", labels=labels
        )
        for server in servers:
            label = (server["address"],)
            up.add_metric(label, server["is_up"])
            connections.add_metric(label, server["connections"])
            seconds.add_metric(label, server["answered"], server["connect_seconds"])
            failures.add_metric(label, server["failures"])
        yield from (up, connections, seconds, failures)

    def _embedded(self) -> Iterator[Metric]:
        numbers = self._sources.embedded()
        for name, (family, text) in _EMBEDDED.items():
            if name in numbers:
                yield family(f"proxyproto_mqtt_embedded_{name}", text, value=numbers[name])

    def _operation(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(
            "proxyproto_build_info", "The version, as labels", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build
        watched = self._sources.store
        yield GaugeMetricFamily(
            "proxyproto_mqtt_store_up", "Whether the store has answered its last call", value=watched.is_up
        )
        yield CounterMetricFamily(
            "proxyproto_mqtt_store_errors", "Calls of the store that have failed", value=watched.errors
        )
        yield HistogramMetricFamily(
            "proxyproto_mqtt_store_seconds",
            "How long calls of the store took",
            buckets=watched.seconds.cumulative(),
            sum_value=watched.seconds.total,
        )
        yield GaugeMetricFamily(
            "proxyproto_mqtt_blocklist_age_seconds",
            "How long ago the blocks of other nodes were last read",
            value=self._sources.blocklist_age(),
        )
        yield from self._blocklists()
        reloads = self._sources.metrics.reloads
        counted = {(key,): n for key, n in (dict.fromkeys(("success", "failure"), 0) | reloads).items()}
        yield _counter("config_reloads", "Reloads of the configuration", ("result",), counted)
        yield GaugeMetricFamily(
            "proxyproto_mqtt_config_reload_successful",
            "Whether the last reload was put in force; 1 if there was none",
            value=self._sources.metrics.reload_was_good,
        )
        expiry = GaugeMetricFamily(
            "proxyproto_mqtt_certificate_expiry_timestamp_seconds",
            "When the certificate of a port ends, in seconds since 1970",
            labels=("listener",),
        )
        for name, seconds in self._sources.metrics.certificates.items():
            expiry.add_metric((name,), seconds)
        yield expiry

    def _blocklists(self) -> Iterator[Metric]:
        gauges = {
            "networks": "Networks that the list keeps out",
            "read_age_seconds": "How long ago the list was last read, or seen to be unchanged; +Inf if it never was",
            "read_successful": "Whether the list could be read the last time",
            "hits": "Connections and logins that the list has refused",
        }
        families = {
            name: (CounterMetricFamily if name == "hits" else GaugeMetricFamily)(
                f"proxyproto_mqtt_blocklist_{name}", text, labels=("list",)
            )
            for name, text in gauges.items()
        }
        for one in self._sources.blocklists():
            age = time.time() - one.read_at / 1000 if one.read_at else math.inf
            for name, value in (
                ("networks", one.networks),
                ("read_age_seconds", max(0.0, age)),
                ("read_successful", one.error is None and bool(one.read_at)),
                ("hits", one.hits),
            ):
                families[name].add_metric((one.name,), value)
        yield from families.values()


def registry(sources: Sources, sessions: Mapping[tuple[str, str], int] | None = None) -> CollectorRegistry:
    """Make a registry with the broker's collector and the process's, so that two brokers in one process do not clash."""
    result = CollectorRegistry()
    result.register(BrokerCollector(sources, sessions))
    ProcessCollector(registry=result)
    return result


def _from_zero(names: Iterable[str], values: Iterable[str]) -> dict[tuple[str, str], int]:
    """Every combination, at 0: `increase()` misses the first event of a series that begins with it."""
    values = tuple(values)
    return {(name, value): 0 for name in names for value in values}


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"proxyproto_mqtt_{name}", text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
