"""An MQTT broker behind proxies: sessions, refusals, blocks and logs carry the client's real address."""

from .backend import Backend, Link
from .config import BrokerConfig, ConfigError
from .connection import Connection, TlsInfo
from .events import Observer, RefusedClient
from .gate import Gate
from .paging import Page
from .passwords import PasswordFile
from .records import BlockedClient, BlockQuery, UnauthorizedClient, UnauthorizedQuery
from .service import BrokerService
from .session_query import SessionQuery
from .session_record import SessionRecord
from .sessions import Sessions, SessionView
from .store import Store, StoreError

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
    "TlsInfo",
    "UnauthorizedClient",
    "UnauthorizedQuery",
]
