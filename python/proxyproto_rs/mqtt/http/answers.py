"""What the API answers, as pydantic models: the OpenAPI document is made of them, and tests hold answers against them.

Fields and their sense are those of the rows: `model.session_record`, `model.records`, TBMQ's names first.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ..model.paging import LARGEST_INTEGER, camel_case
from ..model.records import AddressSource, BlockStatus, BlockType, RegexMatchTarget

Row = TypeVar("Row")

Ms = Annotated[int, Field(description="Milliseconds since 1970; 0 means never.")]


class Answer(BaseModel):
    """An object of an answer."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", alias_generator=camel_case)


class Error(Answer):
    """Why a request was not answered."""

    status: int
    message: str
    error_code: int


class PageOf(Answer, Generic[Row]):
    """Some rows of a table, and how many there are in all."""

    data: list[Row]
    total_pages: int
    total_elements: int
    has_next: bool
    cursor: str | None = None
    """Of sessions, if there are more: the parameter `cursor` for the next page."""


class Tls(Answer):
    """The TLS of a connection."""

    ended_at: Literal["proxy", "broker"]
    version: str | None
    cipher: str | None
    sni: str | None
    client_cert_cn: str | None
    client_cert_verified: bool


class Session(Answer):
    """One client id and its present or last connection."""

    client_id: str
    session_id: str
    connection_state: Literal["CONNECTED", "DISCONNECTED"]
    client_ip_adr: str
    client_type: Literal["DEVICE"]
    node_id: str
    subscriptions_count: int
    connected_at: Ms
    disconnected_at: Ms
    clean_start: bool
    keep_alive_seconds: int
    session_expiry_interval: int
    session_end_ts: Ms
    client_port: int
    username: str | None
    mqtt_version: Literal["MQTT_3_1", "MQTT_3_1_1", "MQTT_5"]
    upstream: str | None
    upstream_connect_ms: float | None
    listener: str
    proxy_ip_adr: str | None
    proxy_port: int | None
    proxy_version: Literal[0, 1, 2]
    destination_ip_adr: str
    destination_port: int
    address_source: AddressSource
    vpc_endpoint_id: str | None
    disconnect_reason: str | None
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    last_seen: Ms
    tls: Tls | None
    is_blocked: Annotated[bool, Field(description="Whether a block covers it already.")]


class Topic(Answer):
    """A subscription."""

    topic_filter: str
    qos: int


class SessionDetail(Session):
    """One session with its subscriptions."""

    subscriptions: list[Topic]


class SessionCounts(Answer):
    """How many sessions there are on all nodes. Those of other nodes are as these told last, within 2 s."""

    connected_count: int
    disconnected_count: int
    total_count: int


class UnauthorizedRow(Answer):
    """A client that was refused. There is a row for each client id and real address."""

    client_id: str
    ip_address: str
    ts: Ms
    username: str | None
    password_provided: bool
    tls_used: bool
    reason: str
    first_ts: Ms
    attempts: int
    reason_code: str
    listener: str
    proxy_address: str | None
    address_source: AddressSource
    port: int
    node_id: str
    is_blocked: Annotated[bool, Field(description="Whether a block covers it already.")]


class Block(Answer):
    """A block."""

    type: BlockType
    value: str
    expiration_time: Ms
    description: str | None
    regex_match_target: RegexMatchTarget | None
    created_at: Ms
    created_by: Literal["api", "config", "auto"]
    hits: int
    last_hit_at: Ms
    strikes: int
    revision: int
    status: BlockStatus


class NewBlock(Answer):
    """A block to make or to change. The value stands under the key of its type, or under `value`."""

    type: BlockType
    value: str | None = None
    client_id: str | None = None
    username: str | None = None
    ip_address: Annotated[str | None, Field(description="An address or a network such as 192.0.2.0/24.")] = (
        None
    )
    pattern: str | None = None
    expiration_time: Ms = 0
    description: str | None = None
    regex_match_target: RegexMatchTarget | None = None


class BlockPreviewAnswer(Answer):
    """Whom a block would cover now, among the connected clients of this node."""

    sessions: int
    users: int
    addresses: int
    examples: list[str]
    refused_because: str | None


class MatchingPreview(Answer):
    """Whom blocks of the addresses of all rows that match would cover now."""

    addresses: Annotated[int, Field(description="How many addresses would be blocked.")]
    sessions: int
    users: int
    examples: list[str]
    more: Annotated[bool, Field(description="Whether more rows match than one request takes.")]


class NewBlocks(Answer):
    """What the blocks of many addresses have in common."""

    expiration_time: Annotated[
        int, Field(ge=0, le=LARGEST_INTEGER, description="Milliseconds since 1970; 0 is for ever.")
    ] = 0
    description: str | None = None


class BlockedMany(Answer):
    """How many addresses were blocked."""

    count: int
    more: Annotated[bool, Field(description="Whether more rows match than one request takes.")]


class Blocklist(Answer):
    """A list of networks that others name, as this node knows it."""

    name: str
    kind: Literal["crowdsec", "file", "url"]
    networks: int
    read_at: Annotated[Ms, Field(description="When it was last read, or seen to be unchanged.")]
    age_seconds: float | None
    every_seconds: float | None
    error: Annotated[str | None, Field(description="Why it could not be read the last time.")]
    hits: Annotated[int, Field(description="Connections and logins that it has refused.")]


class Done(Answer):
    """How many rows or sessions were changed."""

    count: int


class LastRefusal(Answer):
    """Connections that a listener's acceptor has refused."""

    time: Ms
    reason: str
    peer: str
    client: str | None
    count: int
    detail: Annotated[str, Field(description="What came, and what was wrong with it.")]
    remedy: Annotated[str, Field(description="What to do about it, as `proxyproto-rs explain REASON` says.")]
    first_bytes: Annotated[str, Field(description="In hex, at most 24 bytes.")]
    looks_like: str


class ListenerAnswer(Answer):
    """One open port."""

    name: str
    type: str
    bind: str
    address: str
    proxy_protocol: Literal["required", "optional", "off"]
    trusted: list[str] | None
    untrusted: str
    accepted: int
    refused: int
    pending: int
    ready: int
    open: int
    outcomes: dict[str, int]
    last_refusals: list[LastRefusal]


class Upstream(Answer):
    """One address of a server behind."""

    server: str
    address: str
    is_up: bool
    connections: int
    answered: int
    connect_seconds: float
    failures: int


class Listeners(Answer):
    """The open ports, and the servers behind."""

    listeners: list[ListenerAnswer]
    upstreams: list[Upstream]


class TopRow(Answer):
    """One address or network. Counts fade with a half-life of an hour."""

    address: str
    count: float


class MinuteRow(Answer):
    """What happened in one minute."""

    ts: Ms
    accepted: int
    refused: dict[str, int]
    sessions: int
    bytes: int


class Overview(Answer):
    """The counters of the page's first view."""

    node_id: str
    version: str
    started_at: Ms
    now: Ms
    access: Literal["read", "write"]
    connected: int
    sessions: int
    counts_all_nodes: Annotated[
        bool,
        Field(
            description="Whether connected, sessions and unauthorizedRows are those of all nodes. They are this node's"
            " if the store does not answer. The other counters always are."
        ),
    ]
    accepted: int
    refused: int
    bytes_in: int
    bytes_out: int
    unauthorized_rows: int
    active_blocks: int
    event_listeners: int
    dropped: dict[str, int]
    not_ready: list[str]


class Address(Answer):
    """Everything of one address: at most 100 of each kind, the newest first."""

    ip_address: str
    network: Annotated[str, Field(description="The /24 or /64 that it belongs to.")]
    sessions: PageOf[Session]
    refused: PageOf[UnauthorizedRow]
    blocks: list[Block]
    blocklist: Annotated[str | None, Field(description="The list of `blocklists` that keeps it out.")]
    events: Annotated[
        list[dict[str, Any]], Field(description="The last lines of the audit log, as far as they are kept.")
    ]


class Node(Answer):
    """One of the brokers that share the store."""

    node_id: str
    sessions: int
    started_at: Ms
    last_seen: Ms
    is_this: bool


class Ready(Answer):
    """What keeps the broker from serving clients. Nothing: it is ready."""

    status: Literal["ready", "not ready"]
    not_ready: list[str]


class Health(Answer):
    """Whether the event loop runs."""

    status: Literal["ok", "late"]
    lag_seconds: float


Config = dict[str, Any]
