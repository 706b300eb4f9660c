"""The rows that a store keeps, and queries for them. Times are milliseconds since 1970; 0 means never."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .networks import IPNetwork, network_text, parse_network
from .paging import LARGEST_INTEGER, Paging, SortOrder  # noqa: F401 (the inherited __init__ is annotated with it)
from .patterns import compile_pattern

AddressSource = Literal["header", "forwarded", "peer"]
BlockType = Literal["CLIENT_ID", "USERNAME", "IP_ADDRESS", "REGEX"]
RegexMatchTarget = Literal["BY_CLIENT_ID", "BY_USERNAME", "BY_IP_ADDRESS"]
BlockStatus = Literal["ACTIVE", "EXPIRED", "DELETING_SOON"]

BLOCK_TYPES: tuple[BlockType, ...] = ("CLIENT_ID", "USERNAME", "IP_ADDRESS", "REGEX")
REGEX_MATCH_TARGETS: tuple[RegexMatchTarget, ...] = ("BY_CLIENT_ID", "BY_USERNAME", "BY_IP_ADDRESS")
BY_LIST = "BLOCKLIST"
"""What stands for the type of a block where a list of `blocklists` keeps a client out."""
MAX_TEXT = 255

_VALUE_KEYS = {"CLIENT_ID": "clientId", "USERNAME": "username", "IP_ADDRESS": "ipAddress", "REGEX": "pattern"}
"""The key that holds the value in TBMQ's POST, by type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnauthorizedClient:
    """A client that was refused. There is one row for each client id and real address."""

    client_id: str
    ip_address: str
    ts: int
    username: str | None = None
    password_provided: bool = False
    tls_used: bool = False
    reason: str = ""
    first_ts: int = 0
    attempts: int = 1
    reason_code: str
    listener: str
    proxy_address: str | None = None
    address_source: AddressSource = "peer"
    port: int = 0
    node_id: str = ""


@dataclass(frozen=True, kw_only=True)
class UnauthorizedQuery(Paging):
    """Which unauthorized clients to list. Texts match anywhere in the field, as in TBMQ.

    `ip_address` is a network if it is written like 192.0.2.0/24.
    """

    client_id: str | None = None
    ip_address: str | None = None
    username: str | None = None
    reason: str | None = None
    password_provided_list: tuple[bool, ...] = ()
    tls_used_list: tuple[bool, ...] = ()
    reason_code: str | None = None
    listener: str | None = None

    sort_properties: ClassVar[tuple[str, ...]] = (
        "ts", "client_id", "ip_address", "username", "reason", "first_ts", "attempts", "reason_code",
        "listener", "password_provided", "tls_used",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            _ = self.network
        except ValueError as wrong:
            raise ValueError(f"ip_address {wrong}") from None

    @property
    def network(self) -> IPNetwork | None:
        """The network that `ip_address` names; None if it is a part of an address, or of the path of a UNIX socket."""
        text = self.ip_address or ""
        return parse_network(text) if "/" in text[1:] and text[0] != "/" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedClient:
    """A block: a client id, a user, an address or network, or a pattern for one of them.

    `key` is what TBMQ sorts and deletes by. Raises ValueError if the value cannot be blocked.
    """

    type: BlockType
    value: str
    expiration_time: int = 0
    description: str | None = None
    regex_match_target: RegexMatchTarget | None = None
    created_at: int = 0
    created_by: Literal["api", "config", "auto"] = "api"
    hits: int = 0
    last_hit_at: int = 0
    strikes: int = 0
    """How many automatic bans the address has had, with this one. 0 for an operator's block."""
    revision: int = 0
    """Grows with every change in the store."""
    status: BlockStatus = "ACTIVE"
    """The status at the moment of the query. It is not stored."""

    def __post_init__(self) -> None:
        if self.type not in BLOCK_TYPES:
            raise ValueError(f"type must be one of {', '.join(BLOCK_TYPES)} (got {self.type!r})")
        if not self.value or len(self.value) > MAX_TEXT:
            raise ValueError(f"value must have 1 to {MAX_TEXT} characters (got {len(self.value)})")
        if self.expiration_time < 0:
            raise ValueError(f"expiration_time must be 0 or more (got {self.expiration_time})")
        if self.expiration_time > LARGEST_INTEGER:
            raise ValueError("expiration_time must fit into 64 bits")
        if (self.type == "REGEX") != (self.regex_match_target is not None):
            raise ValueError("regex_match_target belongs to type REGEX, and REGEX needs it")
        if self.type == "REGEX" and self.regex_match_target not in REGEX_MATCH_TARGETS:
            raise ValueError(f"regex_match_target must be one of {', '.join(REGEX_MATCH_TARGETS)}")
        if self.type == "REGEX":
            try:
                compile_pattern(self.value)
            except ValueError as wrong:
                raise ValueError(f"value {wrong}") from None
        if self.type == "IP_ADDRESS":
            try:
                object.__setattr__(self, "value", network_text(parse_network(self.value)))
            except ValueError as wrong:
                raise ValueError(f"value {wrong} (got {self.value[:64]!r})") from None

    @property
    def key(self) -> str:
        """Type, target and value in one text. It is equal for two blocks of the same thing."""
        return ":".join(part for part in (self.type, self.regex_match_target or "", self.value) if part)

    def active(self, now_ms: int) -> bool:
        """Whether the block is in force."""
        return not self.expiration_time or now_ms < self.expiration_time

    def status_at(self, now_ms: int, cleanup_ttl_ms: int) -> BlockStatus:
        """Return ACTIVE until the block expires.

        It then stays for `cleanup_ttl_ms`: EXPIRED, then DELETING_SOON in the second half.
        """
        if self.active(now_ms):
            return "ACTIVE"
        return "EXPIRED" if now_ms < self.expiration_time + cleanup_ttl_ms / 2 else "DELETING_SOON"

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> BlockedClient:
        """Read what TBMQ's POST sends. The value stands under the key of its type, or under `value`.

        Raises ValueError with a text for the person who posted it.
        """
        if not isinstance(body, Mapping):
            raise ValueError("must be an object")
        known = {"type", "value", "expirationTime", "description", "regexMatchTarget", *_VALUE_KEYS.values()}
        if unknown := body.keys() - known:
            raise ValueError(f"unknown key {sorted(unknown)[0]!r}; known are {', '.join(sorted(known))}")
        kind = body.get("type")
        if kind not in BLOCK_TYPES:
            raise ValueError(f"type must be one of {', '.join(BLOCK_TYPES)} (got {str(kind)[:64]!r})")
        value = body.get(_VALUE_KEYS[kind], body.get("value"))
        expires = body.get("expirationTime") or 0
        description = body.get("description")
        target = body.get("regexMatchTarget")
        if not isinstance(value, str):
            raise ValueError(f"{_VALUE_KEYS[kind]} must be text")
        if not isinstance(expires, int) or isinstance(expires, bool):
            raise ValueError("expirationTime must be milliseconds since 1970, or 0 for never")
        if description is not None and not isinstance(description, str):
            raise ValueError("description must be text")
        return cls(
            type=kind,
            value=value,
            expiration_time=expires,
            description=description[:MAX_TEXT] if description else None,
            regex_match_target=target if kind == "REGEX" else None,
        )


@dataclass(frozen=True, kw_only=True)
class BlockQuery(Paging):
    """Which blocks to list. `value` matches anywhere. Start and end limit the expiration time, as in TBMQ."""

    type_list: tuple[BlockType, ...] = ()
    value: str | None = None
    regex_match_target_list: tuple[RegexMatchTarget, ...] = ()
    status_list: tuple[BlockStatus, ...] = ()

    sort_properties: ClassVar[tuple[str, ...]] = (
        "created_at", "type", "value", "expiration_time", "description", "regex_match_target",
        "created_by", "hits", "last_hit_at",
    )  # fmt: skip
