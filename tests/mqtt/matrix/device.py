"""A paho client that a test calls step by step, each step waiting for the broker's answer."""

from __future__ import annotations

import queue
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt import plugins
from mqtt.peers import WAIT

if TYPE_CHECKING:
    from typing_extensions import Self

    from interop.certificates import Certificates
    from proxyproto_rs.mqtt.model.connection import Address

    from .routes import Route

PROTOCOLS = {"3.1": paho.MQTTv31, "3.1.1": paho.MQTTv311, "5": paho.MQTTv5}
HOST = "127.0.0.1"
OWN_ADDRESS = "127.0.0.7"
_KEPT_FOR = 60  # seconds


class Message(NamedTuple):
    topic: str
    payload: bytes
    qos: int
    retain: bool


class Device:
    """Logs in as it is made. `answer` is what the broker said."""

    def __init__(
        self,
        route: Route,
        version: str,
        client_id: str,
        certificates: Certificates,
        *,
        clean: bool = True,
        will: str | None = None,
        messages: queue.Queue[Message] | None = None,
    ) -> None:
        options: dict[str, Any] = {} if version == "5" else {"clean_session": clean}
        client: Any = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=PROTOCOLS[version],
            transport="websockets" if route.websocket else "tcp",
            reconnect_on_failure=False,
            **options,
        )
        client.username_pw_set("user", plugins.PASSWORD)
        if route.client_speaks_tls:
            client.tls_set_context(certificates.client_context(with_certificate=not route.tls_here))
        if will is not None:
            client.will_set(will, b"gone", 1)
        self._client = client
        self._version = version
        self.messages: queue.Queue[Message] = queue.Queue() if messages is None else messages
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.on_connect = lambda *told: answers.put((told[2], told[3]))
        client.on_message = lambda *told: self.messages.put(
            Message(told[2].topic, told[2].payload, told[2].qos, told[2].retain)
        )
        first: dict[str, Any] = {}
        if version == "5":
            first = {"clean_start": clean}
            if not clean:
                first["properties"] = _properties(PacketTypes.CONNECT, SessionExpiryInterval=_KEPT_FOR)
        client.connect(HOST, route.port, bind_address=OWN_ADDRESS, **first)
        self.own_address: Address = _socket(client).getsockname()
        client.loop_start()
        flags, answer = answers.get(timeout=WAIT)
        self.session_present: bool = flags.session_present
        self.answer: str = str(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def subscribe(self, topic_filter: str, qos: int) -> None:
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.subscribe(topic_filter, qos)
        assert subscribed.wait(WAIT), "no SUBACK"

    def publish(
        self, topic: str, payload: bytes, qos: int, *, retain: bool = False, alias: int | None = None
    ) -> None:
        """Publish, and wait until the message is acknowledged as its QoS says."""
        properties = None if alias is None else _properties(PacketTypes.PUBLISH, TopicAlias=alias)
        self._client.publish(topic, payload, qos, retain, properties).wait_for_publish(WAIT)

    def message(self) -> Message:
        return self.messages.get(timeout=WAIT)

    def close(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._end()

    def lose(self) -> None:
        """Go without goodbye."""
        _socket(self._client).shutdown(socket.SHUT_RDWR)
        self._end()

    def _end(self) -> None:
        self._client.loop_stop()
        self._client._reset_sockets()  # paho leaves a pair of them to the garbage collector


def _properties(packet_type: int, **values: Any) -> Any:
    properties: Any = Properties(packet_type)  # type: ignore[no-untyped-call] # paho's
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def _socket(client: Any) -> Any:
    """The connection's socket, inside of what paho wraps around it."""
    sock = client.socket()
    while not hasattr(sock, "getsockname"):
        sock = sock._socket
    return sock
