"""Which name a client's certificate gives it. Without a verified name there is no login."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..model.patterns import Pattern, compile_pattern
from ..model.reasons import Refuse

if TYPE_CHECKING:
    from ..config import IdentityConfig
    from ..model.connection import Connection

_MAX_NAME = 255  # bytes
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Identity:
    """The identity rule of one listener."""

    __slots__ = ("_pattern", "source", "use_as")

    def __init__(self, config: IdentityConfig) -> None:
        self.source = config.source
        self.use_as = config.use_as
        self._pattern: Pattern | None = (
            None if config.allow_pattern is None else compile_pattern(config.allow_pattern)
        )

    def name_of(self, connection: Connection, ssl_object: Any) -> str | None:
        """Return the common name of the verified certificate; None if the listener asks for no identity.

        Raises Refuse (`cert-required`) otherwise. The user name of the CONNECT never stands in for the
        certificate.
        """
        if self.source == "none":
            return None
        name = self._of_header(connection) if self.source == "header" else _of_handshake(ssl_object)
        if not _usable(name):
            raise Refuse(
                "cert-required", "bad-name: the common name is empty, too long or has control characters"
            )
        if self._pattern is not None and not self._pattern.fullmatch(name):
            raise Refuse("cert-required", f"{name!r} does not match allow_pattern")
        return name

    def check_client_id(self, name: str | None, client_id: str) -> None:
        """Check that the two are equal under `use_as: client_id`. Raises Refuse (`cert-required`)."""
        if name is not None and self.use_as == "client_id" and client_id != name:
            raise Refuse("cert-required", f"the certificate is {name!r}'s")

    def _of_header(self, connection: Connection) -> str:
        ssl = None if connection.header is None else connection.header.ssl
        if ssl is None:
            raise Refuse("cert-required", "the header has no SSL TLV (send-proxy-v2-ssl-cn; v1 has none)")
        if not ssl.verified:
            raise Refuse("cert-required", f"no verified client certificate (verify={ssl.verify})")
        if ssl.cn is None:
            # The core gives no text for a name that is not UTF-8 or has control characters.
            raise Refuse("cert-required", "bad-name: no common name, or one that is not printable UTF-8")
        return ssl.cn


def common_names(ssl_object: Any) -> list[str]:
    """Return the common names of a client certificate that the handshake verified."""
    certificate = ssl_object.getpeercert() or {}
    return [
        str(value)
        for attributes in certificate.get("subject", ())
        for key, value in attributes
        if key == "commonName"
    ]


def _of_handshake(ssl_object: Any) -> str:
    names = [] if ssl_object is None else common_names(ssl_object)
    if not names:
        raise Refuse("cert-required", "no verified client certificate with a common name")
    if len(names) > 1:
        raise Refuse("cert-required", "bad-name: more than one common name")
    return names[0]


def _usable(name: str) -> bool:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= _MAX_NAME and not _CONTROL.search(name)
