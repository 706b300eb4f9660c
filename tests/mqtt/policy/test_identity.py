"""The certificate as the login: reported by a proxy, found by our own handshake, and refused where it is not enough."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from interop.certificates import CLIENT_NAME
from proxyproto_rs import Header

from ..peers import CLIENT, WELCOME, connack, connect, dial, log_in, running

if TYPE_CHECKING:
    from interop.certificates import Certificates

DESTINATION = ("198.51.100.1", 1883)
TLS, CERT_CONN, CERT_SESS = 1, 2, 4
VERSION, CN = 0x21, 0x22


def ssl_header(
    client: int = TLS | CERT_CONN, verify: int = 0, cn: bytes | None = b"sensor-17", *extra: Any
) -> bytes:
    parts = [(VERSION, b"TLSv1.3"), *([] if cn is None else [(CN, cn)])]
    # Built by hand, because our own encoder refuses names that nobody should send.
    tlvs = tlv_bytes((0x20, struct.pack("!BI", client, verify) + tlv_bytes(*parts)), *extra)
    plain = Header.v2(CLIENT, DESTINATION).encode()
    return plain[:14] + struct.pack("!H", len(plain) - 16 + len(tlvs)) + plain[16:] + tlvs


def tlv_bytes(*tlvs: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs)


def identity(use_as: str = "username", **more: Any) -> dict[str, Any]:
    return {"listeners": {"tcp": {"identity": {"source": "header", "use_as": use_as, **more}}}}


async def test_the_name_is_the_login_and_no_plugin_is_asked() -> None:
    anybody = connect(username="somebody-else", password=b"wrong")
    async with (
        running(**identity()) as broker,
        log_in(broker.address(), anybody, header=ssl_header()) as client,
    ):
        assert client.connack == WELCOME
        assert not broker.plugin("Passwords").asked
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert record.username == "sensor-17"
        session, _ = broker.service.broker.sessions["dev"]
        assert session.username == "sensor-17"
        assert session.ssl_object is not None
        assert session.ssl_object.version() == "TLSv1.3"
        tls = record.to_json()["tls"]
        assert (tls["endedAt"], tls["clientCertCn"], tls["clientCertVerified"]) == (
            "proxy",
            "sensor-17",
            True,
        )


async def test_acl_plugins_see_the_name() -> None:
    chief = ssl_header(cn=b"chief")
    async with running(**identity()) as broker, log_in(broker.address(), header=chief) as client:
        assert await client.ask(b"\x82\x0d\x00\x01\x00\x08secret/x\x00") == b"\x90\x03\x00\x01\x00"


CLOSED = [
    ("v1", Header.v1(CLIENT, DESTINATION).encode(), "no SSL TLV"),
    ("no-tlv", Header.v2(CLIENT, DESTINATION).encode(), "no SSL TLV"),
    ("no-certificate", ssl_header(TLS), "no verified client certificate"),
    ("not-verified", ssl_header(verify=18), "no verified client certificate (verify=18)"),
    ("no-name", ssl_header(cn=None), "bad-name"),
    ("name-outside-the-tlv", ssl_header(TLS | CERT_CONN, 0, None, (CN, b"sensor-17")), "bad-name"),
    ("empty-name", ssl_header(cn=b""), "bad-name"),
    ("long-name", ssl_header(cn=b"x" * 256), "bad-name"),
    ("control-character", ssl_header(cn=b"a\nb"), "bad-name"),
    ("c1-control-character", ssl_header(cn="a\u0085b".encode()), "bad-name"),
    ("not-utf-8", ssl_header(cn=b"\xff"), "bad-name"),
]


@pytest.mark.parametrize(("header", "said"), [row[1:] for row in CLOSED], ids=[row[0] for row in CLOSED])
async def test_without_a_verified_name_nobody_comes_in(header: bytes, said: str) -> None:
    async with running(**identity()) as broker:
        async with log_in(broker.address(), header=header) as client:
            assert client.connack == connack(5)
        (row,) = await broker.rows()
        assert row.reason_code == "cert-required"
        assert said in row.reason


async def test_a_resumed_tls_session_counts_as_verified() -> None:
    async with (
        running(**identity()) as broker,
        log_in(broker.address(), header=ssl_header(TLS | CERT_SESS)) as client,
    ):
        assert client.connack == WELCOME


async def test_used_as_client_id_both_must_be_equal_and_plugins_decide() -> None:
    async with running(**identity("client_id")) as broker:
        async with log_in(broker.address(), connect("sensor-17"), header=ssl_header()) as client:
            assert client.connack == WELCOME
        async with log_in(broker.address(), connect("sensor-18"), header=ssl_header()) as client:
            assert client.connack == connack(5)
        async with log_in(
            broker.address(), connect("sensor-17", password=b"wrong"), header=ssl_header()
        ) as client:
            assert client.connack == connack(5)
        assert sorted(row.reason_code for row in await broker.rows(2)) == ["bad-credentials", "cert-required"]


async def test_used_as_nothing_it_is_required_and_plugins_decide() -> None:
    async with running(**identity("none")) as broker:
        async with log_in(broker.address(), header=ssl_header()) as client:
            assert client.connack == WELCOME
        async with log_in(broker.address(), connect(password=b"wrong"), header=ssl_header()) as client:
            assert client.connack == connack(5)


async def test_a_name_must_match_the_pattern_whole() -> None:
    async with running(**identity(allow_pattern="sensor-[0-9]+")) as broker:
        async with log_in(broker.address(), header=ssl_header()) as client:
            assert client.connack == WELCOME
        async with log_in(broker.address(), header=ssl_header(cn=b"sensor-1x")) as client:
            assert client.connack == connack(5)


def tls_listener(certificates: Certificates, client_certificate: str, **more: Any) -> dict[str, Any]:
    server = str(certificates.server)
    tls = {
        "certfile": server,
        "keyfile": server,
        "cafile": str(certificates.authority),
        "client_certificate": client_certificate,
    }
    return {"listeners": {"ssl": {"tls": tls, **more}}}


async def test_our_own_handshake_names_the_client(certificates: Certificates) -> None:
    ours = tls_listener(certificates, "optional", identity={"source": "tls"})
    async with running(**ours) as broker:
        with_certificate = certificates.client_context(with_certificate=True)
        async with log_in(broker.address("ssl"), ssl=with_certificate) as client:
            assert client.connack == WELCOME
            record = broker.service.sessions.record("dev")
            assert record is not None
            assert record.username == CLIENT_NAME
            assert record.connection.client == CLIENT
            tls = record.to_json()["tls"]
            assert (tls["endedAt"], tls["clientCertCn"], tls["sni"]) == ("broker", CLIENT_NAME, "localhost")
            session, _ = broker.service.broker.sessions["dev"]
            assert session.ssl_object is not None
            assert session.ssl_object.getpeercert(binary_form=True)
        async with log_in(broker.address("ssl"), ssl=certificates.client_context()) as client:
            assert client.connack == connack(5)
        (row,) = await broker.rows()
        assert (row.reason_code, row.tls_used, row.ip_address) == ("cert-required", True, CLIENT[0])


async def test_a_missing_certificate_is_recorded_with_the_real_address(certificates: Certificates) -> None:
    async with running(**tls_listener(certificates, "required")) as broker:
        # With TLS 1.3 the client's side of the handshake is over before the server has seen its certificate.
        async with dial(broker.address("ssl"), ssl=certificates.client_context()) as client:
            await client.end()
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason, row.ip_address) == ("tls-failed", "no-certificate", CLIENT[0])
