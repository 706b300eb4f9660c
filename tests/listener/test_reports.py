"""ListenerStats and Refusal: what they promise as values. And the line that says where a Listener listens."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from peers import V1, V2, Peer, wait_readable
from proxyproto_rs import Listener, ListenerStats, Refusal

if TYPE_CHECKING:
    from pathlib import Path


def stats() -> ListenerStats:
    counts = dict.fromkeys(("v1", "v2", "local", "unknown", "direct", "denied", "timeout"), 0)
    return ListenerStats({**counts, "v1": 1, "v2": 2, "denied": 4, "timeout": 8}, 3, 5, 7, 0)


def test_stats_are_a_mapping_with_sums() -> None:
    numbers = stats()
    assert isinstance(numbers, Mapping)
    assert len(numbers) == 7
    assert numbers["denied"] == 4
    assert (numbers.accepted, numbers.refused) == (3, 12)
    assert (numbers.pending, numbers.ready, numbers.open, numbers.pauses) == (3, 5, 7, 0)
    assert numbers == dict(numbers)
    assert "'denied': 4" in repr(numbers)
    assert "local" not in repr(numbers)


def test_stats_do_not_change() -> None:
    numbers = stats()
    for name in ("pending", "accepted", "anything"):
        with pytest.raises(AttributeError):
            setattr(numbers, name, 1)
    with pytest.raises(TypeError):
        numbers["v1"] = 2  # type: ignore[index]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_stats_go_from_process_to_process(copied: type) -> None:
    assert copied(stats()) == stats()
    assert copied(stats()).open == 7


def test_stats_are_of_their_moment(listener: Listener) -> None:
    before = listener.stats()
    with Peer(listener.getsockname(), V1), Peer(listener.getsockname(), V2):
        with listener.accept()[0], listener.accept()[0]:
            during = listener.stats()
        after = listener.stats()
    assert (before.accepted, before.open) == (0, 0)
    assert (during["v1"], during["v2"], during.open) == (1, 1, 2)
    assert (after.accepted, after.open) == (2, 0)


def test_a_refusal_is_a_value() -> None:
    refused: list[Refusal] = []
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.1"], on_refused=refused.append) as listener,
        Peer(listener.getsockname(), b"GET / HTTP/1.1\r\n"),
    ):
        assert wait_readable(listener.fileno())
        assert listener.try_accept() is None
    (refusal,) = refused
    assert [field.name for field in dataclasses.fields(refusal)] == [
        "reason",
        "peer",
        "client",
        "detail",
        "first_bytes",
        "listener",
        "count",
        "time",
    ]
    assert pickle.loads(pickle.dumps(refusal)) == refusal
    assert hash(refusal) == hash(copy.copy(refusal))
    with pytest.raises(dataclasses.FrozenInstanceError):
        refusal.count = 2  # type: ignore[misc]


def test_the_types_of_a_refusal_are_no_text() -> None:
    """Frameworks would look for a text in the module that the class names."""
    assert not [field.name for field in dataclasses.fields(Refusal) if isinstance(field.type, str)]


STARTS: list[tuple[dict[str, Any], str]] = [
    ({"trusted": ["10.0.0.0/8"]}, "PROXY protocol version 1 or 2 required from 1 trusted network"),
    (
        {"trusted": ["10.0.0.0/8", "::1"], "versions": (2,)},
        "PROXY protocol version 2 required from 2 trusted networks",
    ),
    ({"trusted": None}, "PROXY protocol version 1 or 2 required from every peer"),
    (
        {"trusted": ["::1"], "proxy_protocol": "optional"},
        "PROXY protocol version 1 or 2 optional from 1 trusted network",
    ),
    (
        {"trusted": ["::1"], "untrusted": "direct"},
        "PROXY protocol version 1 or 2 required from 1 trusted network, other peers are clients",
    ),
    ({"proxy_protocol": "off"}, "no PROXY protocol"),
]


@pytest.mark.parametrize(("options", "text"), STARTS, ids=[text for _, text in STARTS])
def test_a_listener_says_once_where_it_listens(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], text: str
) -> None:
    with caplog.at_level(logging.INFO), Listener("127.0.0.1", 0, **options) as listener:
        host, port = listener.getsockname()
        listener.listen()
        with Peer(listener.getsockname()):
            # A peer that need not send a header may be there already.
            if (sock := listener.try_accept()) is not None:
                sock.close()
        listener.update(header_timeout=1)
    lines = [record for record in caplog.records if record.levelno == logging.INFO]
    assert [(line.name, line.getMessage()) for line in lines] == [
        ("proxyproto_rs.listener", f"listening on {host}:{port}, {text}")
    ]


def test_every_kind_of_listener_says_where_it_listens(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = str(tmp_path / "socket")
    caplog.set_level(logging.INFO)
    with Listener.unix(path), socket.create_server(("::1", 0), family=socket.AF_INET6) as bound:
        port = bound.getsockname()[1]
        Listener.adopt(bound, trusted=["::1"]).close()
    assert caplog.messages == [
        f"listening on unix:{path}, PROXY protocol version 1 or 2 required from every peer",
        f"listening on [::1]:{port}, PROXY protocol version 1 or 2 required from 1 trusted network",
    ]
