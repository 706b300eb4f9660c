"""By which rule a header is refused, and what its sender has to change: a row for each code of `InvalidHeader.reason`.

The text of what is wrong stands in the Rust core. Tests compare the codes and the rules with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxyproto_rs import InvalidHeader
from proxyproto_rs.exceptions import REASONS


@dataclass(frozen=True, slots=True)
class HeaderFault:
    """One code."""

    rules: tuple[str, ...]
    """The rules of docs/reference/rules.md that it breaks. It has none if options of the receiver decide."""
    remedy: str


def text_of(code: str) -> str:
    """Return what the code says, in the core's words: lower case, without a full stop."""
    return str(InvalidHeader(code, 0)).partition(": ")[2]


def outcome_of(code: str) -> str:
    """Return the outcome under which a Listener counts it."""
    return REASONS[code]


def _fault(rules: str, remedy: str) -> HeaderFault:
    return HeaderFault(tuple(rules.split()), remedy)


HEADER_FAULTS: dict[str, HeaderFault] = {
    "bad-signature": _fault(
        "R32 R39",
        "this is no PROXY header: switch it on in the sender (`send-proxy-v2` in HAProxy, `proxy_protocol on` in nginx)",
    ),
    "version-not-allowed": _fault("", "let the sender use the other version, or add this one to `versions=`"),
    "oversized": _fault("", "send less in TLVs, or raise the receiver's `max_header_size=`"),
    "truncated": _fault("R6", "put the whole header into one datagram"),
    "unspec-rejected": _fault(
        "R10 R26", "name the client, or do without the receiver's `reject_unspec=True`"
    ),
    "no-space-after-proxy": _fault("R9", "write one space behind `PROXY`"),
    "unknown-protocol": _fault(
        "R9", "write `TCP4`, `TCP6` or `UNKNOWN`, in capitals. For UDP and UNIX send version 2"
    ),
    "line-too-long": _fault("R17", "end the line with CRLF within 107 bytes"),
    "stray-line-break": _fault(
        "R18", "end the line with CR and LF together (`\\r\\n`), and have neither before"
    ),
    "missing-field": _fault(
        "R9", "write source, destination, source port and destination port, with single spaces"
    ),
    "extra-field": _fault("R9", "write nothing behind the destination port but CRLF"),
    "family-mismatch": _fault(
        "R13",
        "write both addresses in the announced family. nginx behind another proxy mixes them: `allow_mixed_families=True`",
    ),
    "ipv4-bad-character": _fault(
        "R11", "write an IPv4 address as four decimals with dots, and not as a name"
    ),
    "ipv4-not-four-octets": _fault("R11", "write exactly four numbers with dots: `192.0.2.1`"),
    "ipv4-leading-zero": _fault("R11", "write the number without the zero: `1`, not `01`"),
    "ipv4-octet-too-large": _fault("R11", "each number is at most 255"),
    "ipv6-bad-character": _fault(
        "R12", "write an IPv6 address in hex digits and colons, without brackets and without `%`"
    ),
    "ipv6-group-too-long": _fault("R12", "each group has at most four digits"),
    "ipv6-empty-group": _fault("R12", "shorten zeros once with `::`, and have single colons elsewhere"),
    "ipv6-second-double-colon": _fault("R12", "shorten zeros with `::` in one place only"),
    "ipv6-not-eight-groups": _fault("R12", "write eight groups, or fewer with one `::`"),
    "port-not-decimal": _fault("R14", "write the port in digits alone"),
    "port-leading-zero": _fault("R14", "write the port without the zero: `443`, not `0443`"),
    "port-too-large": _fault("R14", "ports are at most 65535"),
    "bad-version": _fault("R21", "byte 12 is `21` for PROXY, and `20` for LOCAL"),
    "bad-command": _fault("R22", "byte 12 is `21` for PROXY, and `20` for LOCAL"),
    "bad-family": _fault("R25", "byte 13 starts with 0 (UNSPEC), 1 (IPv4), 2 (IPv6) or 3 (UNIX)"),
    "bad-transport": _fault("R25", "byte 13 ends with 0 (UNSPEC), 1 (STREAM) or 2 (DGRAM)"),
    "length-too-short": _fault(
        "R29", "count the addresses into the length: at least 12 for IPv4, 36 for IPv6, 216 for UNIX"
    ),
    "tlv-truncated": _fault(
        "C8", "each TLV has a type, a length of two bytes, and the value. Correct the header's length"
    ),
    "tlv-overrun": _fault("C8", "correct the length of this TLV, or the length of the header"),
    "unique-id-too-long": _fault("R36 C10", "send an id of at most 128 bytes"),
    "ssl-too-short": _fault("C9", "the SSL TLV starts with one byte of flags and four of the verification"),
    "ssl-tlv-truncated": _fault("C9", "correct the lengths within the SSL TLV"),
    "ssl-tlv-overrun": _fault("C9", "correct the length of this sub-TLV, or that of the SSL TLV"),
    "checksum-length": _fault("R34", "a CRC32C has four bytes"),
    "checksum-mismatch": _fault(
        "R34 C3",
        "compute CRC32C (Castagnoli) over the whole header with these four bytes zeroed, and do it last",
    ),
    "checksum-twice": _fault("C12", "send one CRC32C"),
}
