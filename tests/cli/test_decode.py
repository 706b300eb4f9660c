"""`proxyproto-rs decode`: the vectors in each pasted form, every byte explained, real tools, and hostile input."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cli.pasting import FORMS, VAGUE, VECTORS, connection, ethernet, pcap, pcapng, tcp, xxd
from interop.proxies import find_program
from peers import LOCAL, SIGNATURE, V1, V2
from proxyproto_rs import Header, InvalidHeader
from proxyproto_rs.cli import main
from proxyproto_rs.cli.colours import Colours
from proxyproto_rs.cli.decode import LARGEST_TEXT, explain_all
from proxyproto_rs.cli.decode.capture import MOST_BYTES, MOST_STREAMS, read_capture
from proxyproto_rs.cli.decode.fields import explain
from proxyproto_rs.cli.decode.pasted import NotThisForm, read, starts_a_header

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [vector["name"] for vector in VECTORS]
PLAIN = Colours(io.StringIO())


def data_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["hex"])


SMALL = [vector for vector in VECTORS if 2 <= len(data_of(vector)) <= 8192]


@pytest.mark.parametrize("form", [*FORMS, *VAGUE])
def test_vectors_are_read_in_each_form(form: str) -> None:
    write = FORMS.get(form) or VAGUE[form]
    misread = []
    for vector in SMALL:
        data = data_of(vector)
        if form in VAGUE and not starts_a_header(data):
            continue
        if read(write(data).encode()).pieces != (data,):
            misread.append(vector["name"])
    assert misread == []


def test_vectors_are_read_as_raw_bytes() -> None:
    misread = [vector["name"] for vector in VECTORS if read(data_of(vector)).pieces != (data_of(vector),)]
    assert misread == ["envoy-ProxyLineTooLarge"]  # digits alone, which are hex


@pytest.mark.parametrize("write", [pcap, pcapng])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("link", [1, 101])
def test_vectors_are_read_from_captures(write: Any, order: str, link: int) -> None:
    misread = []
    for vector in SMALL:
        packets = connection(data_of(vector))
        frames = [ethernet(packet) for packet in packets] if link == 1 else packets
        streams = read_capture(write(frames, link, order))
        found = [bytes(stream.data) for stream in streams.found if stream.data]
        if found != [data_of(vector)] or streams.broken:
            misread.append(vector["name"])
    assert misread == []


@pytest.mark.parametrize("vector", VECTORS, ids=NAMES)
def test_every_byte_is_explained(vector: dict[str, Any]) -> None:
    data = data_of(vector)
    explained = explain(data)
    assert_tiled(explained.fields, explained.length)
    assert (explained.header is not None) == (vector["expect"] == "ok")
    if explained.header is not None:
        assert explained.length == vector["consumed"]
        walked = [one for one in explained.fields if one.name == "TLV type" and one.depth == 1]
        assert [int(one.value[:2], 16) for one in walked] == [kind for kind, _ in vector["tlvs"]]
    elif isinstance(explained.fault, InvalidHeader) and explained.fields and data:
        assert explained.fault.offset <= explained.length


def assert_tiled(fields: list[Any], length: int) -> None:
    at = 0
    for one in fields:
        assert one.start == at < one.end
        at = one.end
    assert at == length


TOOLS = [
    ("xxd", []),
    ("xxd", ["-p"]),
    ("xxd", ["-g1"]),
    ("xxd", ["-i"]),
    ("xxd", ["-c", "32"]),
    ("hexdump", ["-C"]),
    ("hexdump", []),
    ("od", ["-A", "x", "-t", "x1"]),
    ("od", ["-A", "x", "-t", "x1z"]),
    ("base64", []),
]


@pytest.mark.parametrize(
    ("tool", "options"), TOOLS, ids=[" ".join([tool, *options]) for tool, options in TOOLS]
)
@pytest.mark.parametrize("length", [28, 29, 40, 300])
def test_real_tools_are_read(tool: str, options: list[str], length: int) -> None:
    data = (V2 + b"deadbeef cafe" + bytes(400))[:length]
    dumped = subprocess.check_output([find_program(tool), *options], input=data)
    assert read(dumped).pieces == (data,)


@pytest.mark.parametrize("options", [["-X"], ["-XX"], ["-x"], ["-vvXX", "-tttt"]], ids=" ".join)
def test_real_tcpdump_is_read(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "capture.pcap").write_bytes(
        pcap([ethernet(packet) for packet in connection(V2 + b"hello there")])
    )
    command = [find_program("tcpdump"), "-n", *options, "-r", str(tmp_path / "capture.pcap")]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    lines, is_well = explain_all(shown, None, PLAIN)
    assert is_well
    assert "TCP 10.0.0.5:51724 > 10.0.0.20:1883" in lines
    assert "  client       192.0.2.1:51724" in lines


def test_a_frame_from_wireshark_as_a_hex_stream_is_read() -> None:
    frame = ethernet(tcp(V1, sequence=1), vlan=True)
    lines, is_well = explain_all(frame.hex().encode(), None, PLAIN)
    assert is_well
    assert "  client       192.0.2.1:51724" in lines


def test_a_line_of_our_log_is_read() -> None:
    line = b"0.0.0.0:1883 refused 10.0.0.5:51724: malformed: leading zero in a port; the first bytes are " + (
        V1[:24].hex(" ").encode() + b". Repeats from 10.0.0.5 are counted every 10 s."
    )
    assert read(line).pieces == (V1[:24],)


def test_packets_come_twice_and_in_any_order() -> None:
    packets = connection(V2 + bytes(range(200)), size=10)
    frames = [packets[0], *reversed(packets[1:]), *packets[1:]]
    streams = read_capture(pcap(frames, 101))
    assert [bytes(stream.data) for stream in streams.found if stream.data] == [V2 + bytes(range(200))]


def test_each_connection_is_a_stream_of_its_own() -> None:
    streams = read_capture(pcap([*connection(V1), *connection(V2, start=5000)], 101))
    assert [bytes(stream.data) for stream in streams.found if stream.data] == [V1, V2]


def test_a_capture_that_is_cut_shows_what_stands_before() -> None:
    whole = pcap(connection(V1) + connection(V2, start=9), 101)
    lines, is_well = explain_all(whole[:-70], None, PLAIN)
    assert is_well
    assert "  client       192.0.2.1:51724" in lines


def test_what_a_capture_holds_is_bounded() -> None:
    many = [packet for number in range(MOST_STREAMS + 5) for packet in connection(V1, start=number * 9000)]
    streams = read_capture(pcap(many, 101))
    assert len(streams.found) <= MOST_STREAMS
    assert streams.left_out > 0
    (stream, _) = read_capture(pcap(connection(V2 + bytes(200_000)), 101)).found
    assert len(stream.data) == MOST_BYTES


def test_the_wrong_byte_and_what_to_change_are_named() -> None:
    lines, is_well = explain_all(rb"PROXY TCP4 192.0.2.1 198.51.100.1 051000 443\r\n", None, PLAIN)
    assert not is_well
    at = lines.index("WRONG at byte 34: leading zero in a port (port-leading-zero)")
    assert lines[at + 1].index("051000") == lines[at + 2].index("^")
    assert lines[at + 3].startswith("  rule R14: ")
    assert lines[at + 4].startswith("  the sender must: write the port without the zero")
    assert lines[at + 5] == "  a Listener counts it as malformed"
    assert [line for line in lines if line.startswith("> 34-39 ")]


def test_two_headers_are_both_explained() -> None:
    lines, is_well = explain_all(V1 + V2 + b"\x10\x0c\x00\x04MQTT", None, PLAIN)
    assert is_well
    assert sum(line.startswith("A valid header") for line in lines) == 2
    assert [line for line in lines if line.startswith("Header 2 follows: each of two proxies sent one.")]
    assert lines[-1].startswith("behind it: 8 bytes, which look like an MQTT CONNECT")
    # Places are counted from the first byte of all.
    assert [line for line in lines if line.split()[:1] == [f"{len(V1)}-{len(V1) + 11}"]]


NOTES = [
    (LOCAL, "LOCAL: the proxy speaks for itself"),
    (b"PROXY UNKNOWN\r\n", "The header names nobody."),
    (b"PROXY TCP4 0.0.0.0 1.2.3.4 1 2\r\n", "No client can have the address 0.0.0.0"),
    (SIGNATURE + b"\x21\x11\xff\xff" + bytes(12) + b"\x04\xff\xf0" + bytes(65520), "It is 65551 bytes long."),
    (
        Header.v2(("192.0.2.1", 1), ("192.0.2.2", 2), tlvs=[(2, b"a"), (2, b"b")]).encode(),
        "TLVs that are there twice: 02.",
    ),
]


@pytest.mark.parametrize(("data", "note"), NOTES, ids=[note for _, note in NOTES])
def test_what_is_valid_and_surprises_is_noted(data: bytes, note: str) -> None:
    lines, is_well = explain_all(data, None, PLAIN)
    assert is_well
    assert [line for line in lines if line.startswith(f"note: {note}")]


def test_a_line_whose_end_was_lost_says_so() -> None:
    lines, is_well = explain_all(V1.replace(b"\r", b""), None, PLAIN)
    assert not is_well
    assert "its end was lost there" in lines[-1]


# --- The command ---


def run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "proxyproto_rs.cli", "decode", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=False)


def test_the_status_says_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "header").write_bytes(V2)
    assert main(["decode", str(tmp_path / "header")]) == 0
    assert main(["decode", "PROXY TCP4 192.0.2.1 198.51.100.1 51000 443"]) == 0
    assert main(["decode", V2[:-1].hex()]) == 1
    assert main(["decode", "GET / HTTP/1.1"]) == 1
    assert "No header: these bytes look like an HTTP request" in capsys.readouterr().out
    assert main(["decode", str(tmp_path)]) == 2
    assert main(["decode", "--as", "hex", "no hex"]) == 2


def test_stdin_is_read() -> None:
    assert run("-", given=xxd(V1).encode()).returncode == 0
    assert b"192.0.2.1:51724" in run(given=V2).stdout


def test_bytes_that_no_terminal_may_see_are_escaped() -> None:
    hostile = Header.v2(
        ("192.0.2.1", 1), ("192.0.2.2", 2), tlvs=[(0xE0, b"\x1b[31m"), (0xE1, "\u202e\u2066".encode())]
    ).encode()
    assert b"\x1b" not in run(given=hostile).stdout
    assert run(given=hostile).stdout.isascii()
    assert run(given=b"PROXY UNKNOWN \x1b[2J\x9b\r\n").stdout.isascii()


# --- Hostile input ---

HEADERS = st.sampled_from([data_of(vector) for vector in SMALL])
ANY_BYTES = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=400).map(lambda text: text.encode()),
    st.builds(lambda header, rest: header + rest, HEADERS, st.binary(max_size=40)),
    st.builds(
        lambda header, form: form(header).encode(),
        HEADERS,
        st.sampled_from([*FORMS.values(), *VAGUE.values()]),
    ),
    st.builds(lambda header: pcap([ethernet(packet) for packet in connection(header)]), HEADERS),
    st.builds(lambda header: pcapng(connection(header), 101), HEADERS),
    st.from_regex(rb"[0-9a-f]{4,8}:? +([0-9a-f]{2,4} ){0,20} ?.{0,20}\n", fullmatch=True),
    st.from_regex(rb"""b?['"](\\[xurn0'"]?|[a-z'"]){0,30}""", fullmatch=True),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Input of any kind, with some bytes changed, cut out or doubled."""
    data = bytearray(draw(ANY_BYTES))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data)


@settings(max_examples=600, deadline=None)
@given(pasted=damaged())
@example(pasted=b"")
@example(pasted=b"0000\n*\nffffffffffff")
@example(pasted=b"\x0a\x0d\x0d\x0a" + b"\x0c\0\0\0" + b"\x4d\x3c\x2b\x1a" * 20)
def test_no_input_raises_and_the_output_is_bounded(pasted: bytes) -> None:
    try:
        lines, _ = explain_all(pasted, None, PLAIN)
    except NotThisForm:
        return
    assert all(line.isascii() and line.isprintable() for text in lines for line in text.split("\n"))
    assert sum(map(len, lines)) < 200_000


@settings(max_examples=600, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=300), st.builds(lambda a, b: a + b, HEADERS, st.binary(max_size=40)), damaged()
    )
)
def test_the_fields_of_any_bytes_lie_side_by_side(data: bytes) -> None:
    explained = explain(data)
    assert_tiled(explained.fields, explained.length)


LARGE = {
    "quotes": b'"' * LARGEST_TEXT,
    "open-literal": b'"' + b"a" * (LARGEST_TEXT - 1),
    "escapes": b"\\x" * (LARGEST_TEXT // 2),
    "hex": b"0d" * (LARGEST_TEXT // 2),
    "spaced-hex": b"0d " * (LARGEST_TEXT // 3),
    "commented": b"/*" * (LARGEST_TEXT // 2),
    "lines": b"0000 00\n" * (LARGEST_TEXT // 8),
    "repeats": b"0000 00\n*\nfffff\n" * (LARGEST_TEXT // 17),
    "separators": b"''" + b" \\;" * (LARGEST_TEXT // 3 - 1),
    "words": b"aa bb " * (LARGEST_TEXT // 6),
    "v1": b"PROXY TCP4" + b" " * (LARGEST_TEXT - 10),
    "tlvs": SIGNATURE + b"\x21\x00\xff\xff" + b"\x04\0\0" * 21845,
    "headers": LOCAL * (LARGEST_TEXT // 16),
}


@pytest.mark.parametrize("pasted", LARGE.values(), ids=list(LARGE))
def test_the_largest_texts_are_dealt_with(pasted: bytes) -> None:
    lines: list[str] = []
    try:
        lines, _ = explain_all(pasted, None, PLAIN)
    except NotThisForm:
        return
    assert sum(map(len, lines)) < 200_000


def test_text_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(NotThisForm, match="more than 1048576 bytes"):
        explain_all(b"0d " * LARGEST_TEXT, None, PLAIN)
