"""Readers written by hand, as fast as pure Python gets: slices, struct and inet_ntop, without TLVs.

`parse` gives both addresses, as a reader for general use would; `parse_source` leaves out whatever only the
destination needs. Both refuse what would put nonsense into an address, and give the header's length.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from struct import Struct

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_INET = Struct("!4s4sHH").unpack_from
_INET6 = Struct("!16s16sHH").unpack_from

Address = tuple[str, int] | tuple[str, int, int, int] | None


def parse(data: bytes) -> tuple[Address, Address, int]:
    """Return the client's and the server's address, and the header's length; None for both if the header names nobody."""
    if data.startswith(_SIGNATURE):
        command = data[12]
        end = 16 + (data[14] << 8 | data[15])
        if len(data) < end:
            raise ValueError("incomplete")
        if command == 0x21:
            family = data[13]
            if family == 0x11 and end >= 28:
                source, destination, source_port, port = _INET(data, 16)
                return (inet_ntop(AF_INET, source), source_port), (inet_ntop(AF_INET, destination), port), end
            if family == 0x21 and end >= 52:
                source, destination, source_port, port = _INET6(data, 16)
                return (
                    (inet_ntop(AF_INET6, source), source_port, 0, 0),
                    (inet_ntop(AF_INET6, destination), port, 0, 0),
                    end,
                )
            raise ValueError("family")
        if command == 0x20:
            return None, None, end
        raise ValueError("command")
    end = data.find(b"\r\n", 0, 107) + 2
    if end == 1:
        raise ValueError("incomplete or invalid")
    if data.startswith(b"PROXY TCP"):
        _, protocol, source, destination, source_port, port = data[: end - 2].decode("ascii").split(" ")
        source_port, port = int(source_port), int(port)
        if source_port > 65535 or port > 65535:
            raise ValueError("port")
        if protocol == "TCP4":
            inet_pton(AF_INET, source)
            inet_pton(AF_INET, destination)
            return (source, source_port), (destination, port), end
        if protocol == "TCP6":
            inet_pton(AF_INET6, source)
            inet_pton(AF_INET6, destination)
            return (source, source_port, 0, 0), (destination, port, 0, 0), end
        raise ValueError("protocol")
    if data.startswith(b"PROXY UNKNOWN"):
        return None, None, end
    raise ValueError("no header")


def parse_source(data: bytes) -> tuple[Address, int]:
    """Return the client's address, or None if the header names nobody, and the header's length."""
    if data.startswith(_SIGNATURE):
        command = data[12]
        end = 16 + (data[14] << 8 | data[15])
        if len(data) < end:
            raise ValueError("incomplete")
        if command == 0x21:
            family = data[13]
            if family == 0x11 and end >= 28:
                return (inet_ntop(AF_INET, data[16:20]), data[24] << 8 | data[25]), end
            if family == 0x21 and end >= 52:
                return (inet_ntop(AF_INET6, data[16:32]), data[48] << 8 | data[49], 0, 0), end
            raise ValueError("family")
        if command == 0x20:
            return None, end
        raise ValueError("command")
    end = data.find(b"\r\n", 0, 107) + 2
    if end == 1:
        raise ValueError("incomplete or invalid")
    if data.startswith(b"PROXY TCP"):
        _, protocol, source, _, source_port, _ = data[: end - 2].decode("ascii").split(" ")
        port = int(source_port)
        if port > 65535:
            raise ValueError("port")
        if protocol == "TCP4":
            inet_pton(AF_INET, source)
            return (source, port), end
        if protocol == "TCP6":
            inet_pton(AF_INET6, source)
            return (source, port, 0, 0), end
        raise ValueError("protocol")
    if data.startswith(b"PROXY UNKNOWN"):
        return None, end
    raise ValueError("no header")
