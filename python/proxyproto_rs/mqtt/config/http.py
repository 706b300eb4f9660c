"""The section `http`: where operators' tools reach the broker, and who may."""

from __future__ import annotations

from .listener import TlsConfig
from .section import Section
from .sections import Secret
from .values import BindAddress, Bool, Mode, parse_bind


class HttpConfig(Section):
    """The API and the page. Without the section there is neither.

    The proxies in front of it are those of `proxy.trusted`.
    """

    bind: BindAddress = parse_bind("127.0.0.1:8083")
    token: Secret | None = None
    token_file: str | None = None
    read_token: Secret | None = None
    hosts: tuple[str, ...] = ()
    tls: TlsConfig | None = None
    proxy_protocol: Mode = "off"
    metrics_auth: Bool = False
