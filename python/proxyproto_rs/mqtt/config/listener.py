"""One listener of the file, with everything that it inherits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from .section import Section
from .sections import IdentityConfig, Secret
from .values import Bool, Count, Duration, ListenerBind, Mode, Networks, Positive, Size

ListenerType = Literal["tcp", "ssl", "ws", "wss"]


class ProxyConfig(Section):
    """Options of `proxyproto_rs.Listener`; see `ListenerConfig.listener_options`. 0 means no limit."""

    trusted: Networks | None = None
    untrusted: Literal["refuse", "direct"] = "refuse"
    versions: tuple[Literal[1, 2], ...] = Field(default=(1, 2), min_length=1)
    header_timeout: Duration = 5.0
    max_header_size: Size = 4096
    max_pending: Positive = 4096
    backlog: Positive = 1024
    reuse_port: Bool = False
    health_checks: Literal["deliver", "close"] = "deliver"
    allow: Networks = ()
    deny: Networks = ()
    max_connections: Count = 0
    max_connections_per_client: Count = 0
    max_rate_per_client: Count = 0
    burst_per_client: Count = 0
    require_tls: Bool = False
    require_client_cert: Bool = False
    allow_mixed_families: Bool = False
    reject_unspec: Bool = False
    ignore_malformed_tlvs: Bool = False


class CertificateConfig(Section):
    """One more certificate, for the host names in it."""

    certfile: str
    keyfile: str | None = None


class TlsConfig(Section):
    """Our own TLS on an ssl or wss listener."""

    certfile: str | None = None
    keyfile: str | None = None
    certificates: tuple[CertificateConfig, ...] = ()
    key_password: Secret | None = None
    key_password_file: str | None = None
    cafile: str | None = None
    crlfile: str | None = None
    client_certificate: Literal["none", "optional", "required"] = "none"
    min_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2"
    ciphers: str | None = None
    alpn: tuple[str, ...] = ("mqtt",)
    strict_x509: Bool | None = None


class ForwardedConfig(Section):
    """The proxies whose X-Forwarded-For is believed, and the headers to read."""

    trusted: Annotated[Networks, Field(min_length=1)]
    headers: tuple[str, ...] = ("x-forwarded-for", "x-real-ip")


class WebSocketConfig(Section):
    """The upgrade request of a ws or wss listener."""

    path: str = "/mqtt"
    subprotocols: tuple[str, ...] = ("mqtt", "mqttv3.1")
    origins: tuple[str, ...] | None = None
    forwarded: ForwardedConfig | None = None

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError("must start with a slash")
        return path


class ListenerConfig(Section):
    """One port: its type, its address, whether it expects PROXY headers, and the global sections as they apply here."""

    name: str
    type: ListenerType
    bind: ListenerBind
    proxy_protocol: Mode = "off"
    proxy: ProxyConfig = ProxyConfig()
    tls: TlsConfig | None = None
    ws: WebSocketConfig | None = None
    identity: IdentityConfig = IdentityConfig()

    @property
    def tls_here(self) -> bool:
        """Whether TLS ends at this listener."""
        return self.type in ("ssl", "wss")

    @property
    def websocket(self) -> bool:
        """Whether MQTT comes in WebSocket messages at this listener."""
        return self.type in ("ws", "wss")

    def listener_options(self) -> dict[str, Any]:
        """Return keywords for `proxyproto_rs.Listener`. Networks are text, and None means no limit."""
        options: dict[str, Any] = {"proxy_protocol": self.proxy_protocol}
        for key in type(self.proxy).model_fields:
            value = getattr(self.proxy, key)
            if key in ("trusted", "allow", "deny"):
                value = None if value is None else tuple(str(network) for network in value)
                if key == "allow":
                    value = value or None  # an empty list means that everybody may come, not nobody
            elif key in NO_LIMIT_AT_ZERO:
                value = value or None
            options[key] = value
        return options


NO_LIMIT_AT_ZERO = frozenset(
    {
        "max_connections",
        "max_connections_per_client",
        "max_rate_per_client",
        "burst_per_client",
    }
)
