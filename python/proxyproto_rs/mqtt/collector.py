"""The broker's counters for Prometheus. No label holds a client id or an address, because strangers choose those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from .model.packet_types import PACKET_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from proxyproto_rs._core import _ServerNumbers

    from .telling.metrics import Metrics


class Sources(Protocol):
    """Where the collector reads its numbers, at each scrape."""

    @property
    def metrics(self) -> Metrics:
        """The counters that no other part keeps."""

    def connections(self) -> Mapping[str, Mapping[str, int]]:
        """The number of each outcome, by listener."""

    def pending(self) -> Mapping[str, int]:
        """The number of connections without a complete header, by listener."""

    def sessions(self) -> Mapping[tuple[str, str], int]:
        """The number of sessions, by listener and state (`connected`, `disconnected`)."""

    def transferred(self) -> Mapping[str, tuple[int, int]]:
        """Bytes in and out by listener, with those of open connections."""

    def blocked(self) -> Mapping[str, int]:
        """The number of active blocks, by type."""

    def servers(self) -> Sequence[_ServerNumbers]:
        """The servers behind, if there are any."""

    def totals(self) -> Mapping[str, int]:
        """The totals `unauthorized_clients`, `unauthorized_dropped`, `auto_blocks` and `audit_dropped`."""


class BrokerCollector(Collector):
    """Reads all numbers once for each scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. prometheus_client calls this for each scrape."""
        yield from self._acceptors()
        yield from self._clients()
        yield from self._traffic()
        yield from self._tables()
        yield from self._upstream()

    def _acceptors(self) -> Iterator[Metric]:
        connections = CounterMetricFamily(
            "proxyproto_connections", "Connections by outcome", labels=("listener", "outcome")
        )
        for listener, outcomes in self._sources.connections().items():
            for outcome, count in outcomes.items():
                connections.add_metric((listener, outcome), count)
        yield connections
        pending = GaugeMetricFamily(
            "proxyproto_pending", "Connections whose header is not complete", labels=("listener",)
        )
        for listener, count in self._sources.pending().items():
            pending.add_metric((listener,), count)
        yield pending

    def _clients(self) -> Iterator[Metric]:
        metrics = self._sources.metrics
        yield _counter("connects", "CONNECTs by result", ("listener", "result"), metrics.connects)
        yield _counter(
            "disconnects", "Ended connections by reason", ("listener", "reason"), metrics.disconnects
        )
        sessions = GaugeMetricFamily("proxyproto_mqtt_sessions", "Sessions", labels=("listener", "state"))
        for labels, count in self._sources.sessions().items():
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
                    if count:
                        packets.add_metric((listener, direction, name), count)
        yield packets
        denied = self._sources.metrics.acl_denied
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
        hits = self._sources.metrics.block_hits
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


def registry(sources: Sources) -> CollectorRegistry:
    """Make a registry with the broker's collector only, so that two brokers in one process do not clash."""
    result = CollectorRegistry()
    result.register(BrokerCollector(sources))
    return result


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"proxyproto_mqtt_{name}", text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
