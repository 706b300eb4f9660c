"""TLS by Python's ssl in the gateway, for what rustls has not: an SSLContext of the user's own, a key with a password."""

from __future__ import annotations

import contextlib
import ssl

from ..policy.identity import common_names
from .tls import why_failed

_MOST = 64 * 1024  # bytes that are read at once; the gateway gives no more


class Openssl:
    """Makes the TLS of each connection. The gateway calls it on its threads."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def __call__(self) -> OpensslChannel:
        """Return the TLS of one connection."""
        return OpensslChannel(self._context)


class OpensslChannel:
    """The server's side of TLS for one connection, without I/O."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_open = self._is_over = False

    def decode(self, received: bytes) -> tuple[bytes, bytes, bool, bool, str | None]:
        """Take bytes of the peer.

        Return what was in them, what is to be sent, whether the handshake is done, whether the peer has said goodbye,
        and what has failed.
        """
        self._incoming.write(received)
        pieces: list[bytes] = []
        fault = None
        try:
            if not self._is_open:
                self._tls.do_handshake()
                self._is_open = True
            while not self._is_over:
                piece = self._tls.read(_MOST)
                pieces.append(piece)
                self._is_over = not piece
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._is_over = True
        except OSError as wrong:
            fault = why_failed(wrong)
        return b"".join(pieces), self._outgoing.read(), self._is_open, self._is_over, fault

    def encode(self, payload: bytes) -> bytes:
        """Return what carries the payload."""
        self._tls.write(payload)
        return self._outgoing.read()

    def close(self, _: bytes) -> bytes:
        """Return what says goodbye."""
        with contextlib.suppress(
            ssl.SSLError
        ):  # the peer has not answered yet, or the handshake was not done
            self._tls.unwrap()
        return self._outgoing.read()

    def facts(
        self,
    ) -> tuple[str, str, str | None, bytes | None, bytes | None, str | None, bool]:
        """Return version, cipher, SNI, protocol, the client's certificate, its common name, and whether it has more."""
        cipher, protocol, names = (
            self._tls.cipher(),
            self._tls.selected_alpn_protocol(),
            common_names(self._tls),
        )
        return (
            self._tls.version() or "",
            cipher[0] if cipher else "",
            getattr(self._tls, "_proxyproto_rs_sni", None),
            None if protocol is None else protocol.encode(),
            self._tls.getpeercert(binary_form=True),
            names[0] if names else None,
            len(names) > 1,
        )
