"""The brokers that mqtt_gate.py and gateway-bench measure; writes its address and serves until killed.

python benches/mqtt_server.py plain|gate|service|behind|embedded|kept DIRECTORY
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from amqtt.broker import Broker

from proxyproto_rs import Listener
from proxyproto_rs.mqtt import BrokerConfig, BrokerService, Gate
from proxyproto_rs.mqtt.config import LogConfig
from proxyproto_rs.mqtt.telling.logs import configure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
TRUSTED = ["127.0.0.1"]


async def plain() -> str:
    """amqtt alone: no header, no gate."""
    broker = Broker({"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}, "plugins": PLUGINS})
    await broker.start()
    (sock,) = broker._servers["default"].instance.sockets
    return _text(sock.getsockname())


async def gate() -> str:
    """A Listener, the gate, amqtt."""
    external = {"type": "external"}
    broker = Broker({"listeners": {"default": external, "tcp": dict(external)}, "plugins": PLUGINS})
    gate = Gate(broker)
    await gate.backend.start()
    listener = Listener("127.0.0.1", 0, trusted=TRUSTED)
    await gate.serve(listener, name="tcp", trusted=TRUSTED)
    _kept.append(gate)
    return _text(listener.getsockname())


async def service() -> str:
    """The whole broker: sessions, store, counters, and its log lines written to standard error."""
    configure(LogConfig())
    config = BrokerConfig.model_validate(
        {
            "listeners": {"tcp": {"bind": "127.0.0.1:0", "proxy_protocol": "required"}},
            "proxy": {"trusted": TRUSTED},
            "store": "sqlite::memory:",
            "amqtt": {"plugins": PLUGINS},
        }
    )
    service = BrokerService(config)
    await service.start()
    _kept.append(service)
    listener = service.listening["tcp"].listener
    assert listener is not None
    return _text(listener.getsockname())


async def behind() -> str:
    """amqtt behind the front, for clients that send no header."""
    return await _serve({"amqtt": {"plugins": PLUGINS}})


async def embedded() -> str:
    """Our own broker, for clients that send no header."""
    return await _serve({"backend": {"embedded": {}}, "auth": ["anonymous"]})


async def kept(directory: str) -> str:
    """Our own broker, with sessions and messages on the disk."""
    return await _serve({"backend": {"embedded": {"persistence": directory}}, "auth": ["anonymous"]})


async def _serve(sections: dict[str, object]) -> str:
    configure(LogConfig(level="ERROR"))
    config = {
        "listeners": {"tcp": {"bind": "127.0.0.1:0", "proxy_protocol": "off"}},
        "store": "sqlite::memory:",
    }
    service = BrokerService(BrokerConfig.model_validate({**config, **sections}))
    await service.start()
    _kept.append(service)
    listener = service.listening["tcp"].listener
    assert listener is not None
    return _text(listener.getsockname())


_kept: list[object] = []


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


async def main(kind: str, *of_it: str) -> None:
    kinds: dict[str, Callable[..., Awaitable[str]]] = {
        "plain": plain,
        "gate": gate,
        "service": service,
        "behind": behind,
        "embedded": embedded,
        "kept": kept,
    }
    print(await kinds[kind](*of_it), flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
