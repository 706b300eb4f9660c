"""An MQTT broker behind proxies: sessions, refusals, blocks and logs carry the client's real address."""

from typing import TYPE_CHECKING

from .backend.protocol import Backend, Link
from .config import BrokerConfig, ConfigError
from .front.gate import Gate
from .model.connection import Connection, TlsInfo
from .model.events import Observer, RefusedClient
from .model.paging import Page
from .model.records import BlockedClient, BlockQuery, UnauthorizedClient, UnauthorizedQuery
from .model.session_query import SessionQuery
from .model.session_record import SessionRecord
from .service import BrokerService
from .store.nodes import Node
from .store.protocol import Store, StoreError, StoreUnavailable
from .tables.sessions import Sessions, SessionView

if TYPE_CHECKING:
    from .policy.passwords import PasswordFile

__all__ = [
    "Backend",
    "BlockQuery",
    "BlockedClient",
    "BrokerConfig",
    "BrokerService",
    "ConfigError",
    "Connection",
    "Gate",
    "Link",
    "Node",
    "Observer",
    "Page",
    "PasswordFile",
    "RefusedClient",
    "SessionQuery",
    "SessionRecord",
    "SessionView",
    "Sessions",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "TlsInfo",
    "UnauthorizedClient",
    "UnauthorizedQuery",
]


def __getattr__(name: str) -> object:
    if name == "PasswordFile":  # a plugin of amqtt: whoever has another broker needs no amqtt
        try:
            from .policy.passwords import PasswordFile
        except ModuleNotFoundError:
            raise ImportError('PasswordFile needs amqtt: pip install "proxyproto_rs[amqtt]"') from None
        return PasswordFile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
