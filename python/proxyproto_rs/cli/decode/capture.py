"""Captures of packets, pcap and pcapng, and the frames in them: to the first bytes of each TCP stream and each datagram.

What it keeps is bounded, whatever the file says: so many streams, and so many bytes of each.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_STREAMS = 1000
MOST_BYTES = 65551 + 1024
"""Of one stream: the longest header, and a little of what follows."""

_PCAP = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\x4d\x3c\xb2\xa1": "<",  # times in nanoseconds
    b"\xa1\xb2\x3c\x4d": ">",
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"

_ETHERNET, _RAW_OLD, _RAW_BSD, _RAW, _LOOPBACK, _LOOP, _SLL, _SLL2, _IPV4, _IPV6 = (
    1,
    12,
    14,
    101,
    0,
    108,
    113,
    276,
    228,
    229,
)
_TCP, _UDP = 6, 17
_SYN = 0x02


class _Broken(ValueError):
    """The file is broken. The text says where."""


class Segment(NamedTuple):
    """What one packet carries."""

    protocol: str
    """``TCP`` or ``UDP``."""
    source: str
    destination: str
    sequence: int
    starts: bool
    """Whether it is a SYN, the first of its connection."""
    payload: bytes


@dataclass
class Stream:
    """The first bytes that one end of a connection sent, or one datagram."""

    protocol: str
    source: str
    destination: str
    base: int = 0
    data: bytearray = field(default_factory=bytearray)
    is_from_start: bool = False
    waiting: dict[int, bytes] = field(default_factory=dict)
    """Segments behind a gap, by their offset in the stream."""

    @property
    def title(self) -> str:
        """Who sends to whom."""
        return f"{self.protocol} {self.source} > {self.destination}"

    def add(self, segment: Segment) -> None:
        """Take one more packet. Packets may come twice, and in any order."""
        offset = (segment.sequence - self.base) & 0xFFFFFFFF
        if offset >= MOST_BYTES or not segment.payload:
            return
        if len(self.waiting) < _MOST_WAITING:
            self.waiting.setdefault(offset, segment.payload)
        while (at := next((at for at in self.waiting if at <= len(self.data)), None)) is not None:
            piece = self.waiting.pop(at)
            self.data += piece[len(self.data) - at :][: MOST_BYTES - len(self.data)]


_MOST_WAITING = 64


@dataclass
class Streams:
    """The streams of a capture."""

    found: list[Stream] = field(default_factory=list)
    left_out: int = 0
    """How many packets belong to streams that found no place."""
    broken: str | None = None
    """Where the file is broken. What stands before is in `found`."""


def is_capture(data: bytes) -> bool:
    """Whether a capture file begins here."""
    return data[:4] in _PCAP or (data.startswith(_PCAPNG) and data[8:12] in _PCAPNG_ORDERS)


def read_capture(data: bytes) -> Streams:
    """Return the streams in a capture file."""
    streams = Streams()
    try:
        frames = _pcap(data) if data[:4] in _PCAP else _pcapng(data)
        _sort(
            (segment for link, frame in frames if (segment := read_frame(frame, link)) is not None), streams
        )
    except _Broken as broken:
        streams.broken = str(broken)
    return streams


def read_packets(packets: Iterable[bytes]) -> Streams | None:
    """Return the streams in packets that were pasted. None unless each is a frame of Ethernet or a packet of IP."""
    segments = [read_frame(packet, _guess_link(packet)) for packet in packets]
    if not segments or any(segment is None for segment in segments):
        return None
    streams = Streams()
    _sort((segment for segment in segments if segment is not None), streams)
    return streams


def _sort(segments: Iterable[Segment], streams: Streams) -> None:
    """Put each segment into its stream."""
    latest: dict[tuple[str, str, str], Stream] = {}
    for segment in segments:
        key = segment[:3]
        stream = latest.get(key)
        if stream is None or segment.starts or segment.protocol == "UDP":
            if segment.starts and stream is not None and segment.sequence + 1 & 0xFFFFFFFF == stream.base:
                continue  # a SYN that was sent again
            if len(streams.found) >= MOST_STREAMS:
                streams.left_out += 1
                continue
            base = segment.sequence + segment.starts
            stream = latest[key] = Stream(*key, base=base, is_from_start=segment.starts)
            streams.found.append(stream)
        # A SYN may carry data (TCP Fast Open), which stands behind the SYN's own number.
        stream.add(segment._replace(sequence=segment.sequence + segment.starts))


def _pcap(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = _PCAP[data[:4]]
    head = data[:24]
    if len(head) < 24:  # the file's header
        raise _Broken("the pcap file ends inside its header")
    link = struct.unpack(f"{order}I", head[20:])[0] & 0xFFFF
    at = 24
    while at < len(data):
        record = data[at : at + 16]
        if len(record) < 16:  # the packet's header
            raise _Broken(f"the pcap file ends inside a packet's header, at byte {at}")
        (captured,) = struct.unpack(f"{order}8xI4x", record)
        frame = data[at + 16 : at + 16 + captured]
        yield link, frame
        at += 16 + captured


_PCAPNG_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _SIMPLE, _ENHANCED = 1, 3, 6
_SHORTEST_BLOCK = 12


def _pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    order, at = "<", 0
    links: list[int] = []
    while at < len(data):
        if data[at : at + 4] == _PCAPNG:
            links = []
            order = _PCAPNG_ORDERS.get(data[at + 8 : at + 12], order)
        head = data[at : at + 8]
        kind, length = struct.unpack(f"{order}II", head) if len(head) == 8 else (0, 0)
        if length < _SHORTEST_BLOCK or length % 4:
            raise _Broken(f"the pcapng file has a block of an impossible length at byte {at}")
        block = data[at + 8 : at + length - 4]
        if kind == _INTERFACE and len(block) >= 2:
            links.append(struct.unpack(f"{order}H", block[:2])[0])
        elif kind == _ENHANCED and len(block) >= 20:
            interface, captured = struct.unpack(f"{order}I8xI", block[:16])
            if interface < len(links):
                yield links[interface], block[20 : 20 + captured]
        elif kind == _SIMPLE and links:
            yield links[0], block[4:]
        at += length


def _guess_link(packet: bytes) -> int:
    """Tell a packet of IP (tcpdump -X) from a frame of Ethernet (tcpdump -XX, Wireshark)."""
    first = packet[:1]
    if first == b"\x45" or (first[0:1] and first[0] >> 4 == 6 and packet[6:7] in (b"\x06", b"\x11")):
        return _RAW
    return _ETHERNET


def read_frame(frame: bytes, link: int) -> Segment | None:
    """Return what a frame carries; None if it is neither TCP nor UDP over IP."""
    try:
        return _read_ip(_packet(frame, link))
    except (struct.error, IndexError, ValueError):
        return None


def _packet(frame: bytes, link: int) -> bytes:
    """Return the packet of IP in a frame; b"" if there is none."""
    if link in (_RAW, _RAW_OLD, _RAW_BSD, _IPV4, _IPV6):
        return frame
    if link in (_LOOPBACK, _LOOP):
        return frame[4:]
    if link == _SLL:
        return frame[16:]
    if link == _SLL2:
        return frame[20:]
    if link != _ETHERNET:
        return b""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):  # tags of VLANs
        at += 4
    return frame[at + 2 :] if frame[at : at + 2] in (b"\x08\x00", b"\x86\xdd") else b""


_EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options
_IPV6_HEADER = 40


def _read_ip(packet: bytes) -> Segment | None:
    version = packet[0] >> 4
    if version == 4:
        start = (packet[0] & 0x0F) * 4
        length, fragment, protocol = struct.unpack("!H2xHxB", packet[2:10])
        if fragment & 0x1FFF:
            return None  # not the first fragment
        source, destination = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    elif version == 6:
        length, protocol = struct.unpack("!HB", packet[4:7])
        length += _IPV6_HEADER
        start = _IPV6_HEADER
        while protocol in _EXTENSIONS:
            protocol, start = packet[start], start + 8 + packet[start + 1] * 8
        source, destination = (f"[{ipaddress.IPv6Address(packet[at : at + 16])}]" for at in (8, 24))
    else:
        return None
    # Ethernet fills short frames up. A length of 0 is the network card's doing, which cuts packets later.
    body = packet[start : length or None]
    sport, dport = struct.unpack("!HH", body[:4])
    ends = (f"{source}:{sport}", f"{destination}:{dport}")
    if protocol == _UDP:
        return Segment("UDP", *ends, 0, False, body[8:])
    if protocol != _TCP:
        return None
    sequence, offset, flags = struct.unpack("!I4xBB", body[4:14])
    return Segment("TCP", *ends, sequence, bool(flags & _SYN), body[(offset >> 4) * 4 :])
