"""Any program's Listeners in Prometheus' format."""

from __future__ import annotations

import re
import socket
import time

import pytest

from proxyproto_rs import Header, Listener

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")

from proxyproto_rs.metrics import ListenerCollector  # noqa: E402

HEADER = Header.v2(("192.0.2.1", 1), ("198.51.100.1", 2)).encode()


def scraped(collector: ListenerCollector) -> dict[str, float]:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector)
    text = prometheus_client.generate_latest(registry).decode()
    return {name: float(number) for name, number in re.findall(r"^([^#]\S*) (\S+)$", text, re.M)}


def test_outcomes_and_numbers_of_now() -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        collector = ListenerCollector(listener, name="web")
        before = scraped(collector)
        assert before['proxyproto_connections_total{listener="web",outcome="missing-header"}'] == 0
        with socket.create_connection(listener.getsockname()) as peer:
            peer.sendall(HEADER)
            sock, _ = listener.accept()
            with sock:
                now = scraped(collector)
        assert now['proxyproto_connections_total{listener="web",outcome="v2"}'] == 1
        assert now['proxyproto_open{listener="web"}'] == 1
        assert now['proxyproto_pending{listener="web"}'] == 0
        assert now['proxyproto_header_seconds_count{listener="web"}'] == 1


def test_how_long_a_header_took() -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        with socket.create_connection(listener.getsockname()) as peer:
            peer.sendall(HEADER[:10])
            while not listener.stats().pending:
                time.sleep(0.001)
            since = time.monotonic()
            time.sleep(0.06)
            least = time.monotonic() - since
            peer.sendall(HEADER[10:])
            sock, _ = listener.accept()
            sock.close()
        now = scraped(ListenerCollector(listener, name="web"))
        assert now['proxyproto_header_seconds_bucket{le="0.05",listener="web"}'] == 0
        assert now['proxyproto_header_seconds_bucket{le="+Inf",listener="web"}'] == 1
        assert now['proxyproto_header_seconds_sum{listener="web"}'] >= least - 0.005
        assert listener.stats().header_times[1] == 1


def test_several_listeners_and_a_closed_one() -> None:
    with Listener("127.0.0.1", 0) as one, Listener("::1", 0) as two:
        port = one.getsockname()[1]
        collector = ListenerCollector(one, more={"inside": two})
        assert scraped(collector)[f'proxyproto_open{{listener="127.0.0.1:{port}"}}'] == 0
    assert scraped(collector)['proxyproto_open{listener="inside"}'] == 0
