"""Reads when a certificate ends. The standard library shows that of verified peers only."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from pathlib import Path

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


def expiry_of(certfile: str) -> float | None:
    """Return when the first certificate of a PEM file ends, in seconds since 1970; None if it cannot be told."""
    try:
        pem = Path(certfile).read_text("ascii", errors="replace")
        start = pem.index("-----BEGIN CERTIFICATE-----")
        end = pem.index("-----END CERTIFICATE-----", start) + len("-----END CERTIFICATE-----")
        return _not_after(ssl.PEM_cert_to_DER_cert(pem[start:end]))
    except (OSError, ValueError, IndexError):
        return None


def _not_after(certificate: bytes) -> float:
    """Walk to the end of the validity (RFC 5280, section 4.1). Raises ValueError or IndexError for anything else."""
    fields = _inside(_inside(certificate))  # Certificate, tbsCertificate
    if fields[0] == _VERSION:
        fields = _behind(fields)
    for _ in range(3):  # serialNumber, signature, issuer
        fields = _behind(fields)
    kind, text = _element(_behind(_inside(fields)))
    if kind == _UTC_TIME:  # two digits of the year: 50 and more are of the last century
        text = (b"19" if text[:2] >= b"50" else b"20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("no time")
    return datetime.strptime(text.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _inside(data: bytes) -> bytes:
    kind, value = _element(data)
    if kind != _SEQUENCE:
        raise ValueError("no sequence")
    return value


def _element(data: bytes) -> tuple[int, bytes]:
    start, length = _length(data)
    return data[0], data[start : start + length]


def _behind(data: bytes) -> bytes:
    start, length = _length(data)
    return data[start + length :]


def _length(data: bytes) -> tuple[int, int]:
    first = data[1]
    if first < 0x80:  # noqa: PLR2004 (the short form)
        return 2, first
    size = first & 0x7F
    return 2 + size, int.from_bytes(data[2 : 2 + size], "big")
