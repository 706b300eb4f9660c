"""The counters of a Listener for Prometheus. The extra `metrics` brings prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from proxyproto_rs import Listener, ListenerStats

__all__ = ["ListenerCollector"]


class ListenerCollector(Collector):
    """Gives the counters of Listeners to prometheus-client, under the names of the MQTT broker's.

    They are `proxyproto_connections_total` by listener and outcome, `proxyproto_pending`, `proxyproto_open` and
    `proxyproto_header_seconds`. Each is read when it is scraped, so accepting costs nothing more.

    Typical use::

        from prometheus_client import REGISTRY, start_http_server

        listener = Listener("0.0.0.0", 8000, trusted=["10.0.0.0/8"])
        REGISTRY.register(ListenerCollector(listener, name="web"))
        start_http_server(9100)

    Args:
        listener: The Listener. In a forked child it cannot be read, and gives nothing.
        name: The value of the label `listener`. By default it is the Listener's address.
        more: Other Listeners by name. A registry takes one collector of these metrics, and so does a scrape.
    """

    def __init__(
        self, listener: Listener, *, name: str | None = None, more: Mapping[str, Listener] | None = None
    ) -> None:
        self._listeners = {_address(listener) if name is None else name: listener, **(more or {})}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. prometheus-client calls this for each scrape."""
        return families(
            {name: stats for name, stats in map(_read, self._listeners.items()) if stats is not None}
        )


def families(listeners: Mapping[str, ListenerStats]) -> Iterator[Metric]:
    """Yield the metrics of several listeners by name."""
    connections = CounterMetricFamily(
        "proxyproto_connections", "Connections by outcome", labels=("listener", "outcome")
    )
    pending = GaugeMetricFamily(
        "proxyproto_pending", "Connections whose header is not complete", labels=("listener",)
    )
    opened = GaugeMetricFamily(
        "proxyproto_open", "Connections that are served or wait to be accepted", labels=("listener",)
    )
    seconds = HistogramMetricFamily(
        "proxyproto_header_seconds", "From the accepted connection to its whole header", labels=("listener",)
    )
    for name, stats in listeners.items():
        for outcome, number in stats.items():
            connections.add_metric((name, outcome), number)
        pending.add_metric((name,), stats.pending)
        opened.add_metric((name,), stats.open)
        within, count, total = stats.header_times
        buckets = [(str(bound), number) for bound, number in within]
        seconds.add_metric((name,), [*buckets, ("+Inf", count)], total)
    yield from (connections, pending, opened, seconds)


def _read(named: tuple[str, Listener]) -> tuple[str, ListenerStats | None]:
    name, listener = named
    try:
        return name, listener.stats()
    except RuntimeError:  # the Listener was made before a fork
        return name, None


def _address(listener: Listener) -> str:
    name = listener.getsockname()
    if not isinstance(name, tuple):
        return str(name)
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
