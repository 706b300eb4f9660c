"""TLS at the broker: handshakes that fail, each named and with the real address; files that make no context."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from interop.certificates import make
from proxyproto_rs.mqtt.config import TlsConfig
from proxyproto_rs.mqtt.front.tls import server_context

from ..peers import CLIENT, PINGREQ, PINGRESP, WELCOME, connect, dial, log_in, publish, running, subscribe

if TYPE_CHECKING:
    from pathlib import Path

    from interop.certificates import Certificates


def listener(certificates: Certificates, **tls: Any) -> dict[str, Any]:
    server = str(certificates.server)
    return {"listeners": {"ssl": {"tls": {"certfile": server, "keyfile": server, **tls}}}}


async def test_header_hello_and_connect(certificates: Certificates) -> None:
    async with (
        running(**listener(certificates)) as broker,
        log_in(broker.address("ssl"), ssl=certificates.client_context()) as client,
    ):
        assert client.connack == WELCOME
        assert await client.ask(PINGREQ) == PINGRESP
        await client.ask(subscribe("a"))
        client.send(publish("a", bytes(60_000)))
        assert (await client.message()).payload == bytes(60_000)
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert record.connection.client == CLIENT


FAILED = [
    ("wrong-version", connect().encode(), "wrong-version"),
    ("http", b"GET / HTTP/1.1\r\n\r\n", "wrong-version"),
    ("closed", b"\x16\x03\x01", "closed"),
]


@pytest.mark.parametrize(("sent", "said"), [row[1:] for row in FAILED], ids=[row[0] for row in FAILED])
async def test_a_failed_handshake_is_recorded(certificates: Certificates, sent: bytes, said: str) -> None:
    async with running(**listener(certificates)) as broker:
        async with dial(broker.address("ssl"), sent) as client:
            client.writer.write_eof()
            await client.end()
        (row,) = await broker.rows()
        assert (row.reason_code, row.ip_address, row.listener) == ("tls-failed", CLIENT[0], "ssl")
        assert row.reason.partition(":")[0] == said


async def test_a_handshake_that_does_not_come_is_a_timeout(certificates: Certificates) -> None:
    async with running(mqtt={"tls_timeout": "50ms"}, **listener(certificates)) as broker:
        async with dial(broker.address("ssl"), b"\x16\x03\x01") as client:
            assert await client.end() == b""
        (row,) = await broker.rows()
        assert (row.reason_code, row.reason) == ("tls-failed", "timeout")


async def test_a_strange_certificate_is_a_bad_one(certificates: Certificates, tmp_path: Path) -> None:
    stranger = make(tmp_path)
    context = certificates.client_context()
    context.load_cert_chain(stranger.client)
    required = listener(certificates, cafile=str(certificates.authority), client_certificate="required")
    async with running(**required) as broker:
        async with dial(broker.address("ssl"), ssl=context) as client:
            await client.end()
        (row,) = await broker.rows()
        assert row.reason_code == "tls-failed"
        assert row.reason.startswith("bad-certificate: ")


async def test_minimum_version(certificates: Certificates) -> None:
    context = certificates.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with running(**listener(certificates, min_version="TLSv1.3")) as broker:
        with pytest.raises(OSError):  # asyncio sends no alert with it
            async with dial(broker.address("ssl"), ssl=context):
                pass
        (row,) = await broker.rows()
        assert row.reason.startswith("wrong-version: ")


async def test_a_key_with_a_password(certificates: Certificates, tmp_path: Path) -> None:
    key = load_pem_private_key(certificates.server.read_bytes(), None)
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    options = listener(certificates, keyfile=str(encrypted), key_password="secret")
    async with (
        running(**options) as broker,
        log_in(broker.address("ssl"), ssl=certificates.client_context()) as client,
    ):
        assert client.connack == WELCOME
        assert await client.ask(PINGREQ) == PINGRESP
        record = broker.service.sessions.record("dev")
        assert record is not None
        assert record.to_json()["tls"]["version"] == "TLSv1.3"


@pytest.fixture
def files(certificates: Certificates, tmp_path: Path) -> dict[str, str]:
    other = make(tmp_path)
    server = certificates.server.read_text()
    key_only, junk = tmp_path / "key.pem", tmp_path / "junk.pem"
    key_only.write_text(server[server.index("-----BEGIN PRIVATE") :])
    junk.write_text("not a certificate\n")
    return {
        "server": str(certificates.server),
        "other": str(other.server),
        "key": str(key_only),
        "junk": str(junk),
        "none": str(tmp_path / "none.pem"),
    }


BROKEN = [
    ({"certfile": "none", "keyfile": "key"}, "certfile: {none}: no such file"),
    ({"certfile": "server", "keyfile": "none"}, "keyfile: {none}: no such file"),
    (
        {"certfile": "server", "keyfile": "other"},
        "certfile: {server} and {other}: the key is not the certificate's",
    ),
    (
        {"certfile": "junk", "keyfile": "key"},
        "certfile: {junk} and {key}: not a certificate and key in PEM form",
    ),
    ({"certfile": "server", "keyfile": "key", "cafile": "junk"}, "cafile: {junk}: no certificate in it"),
    ({"certfile": "server", "keyfile": "key", "cafile": "none"}, "cafile: {none}: No such file or directory"),
    (
        {"certfile": "server", "keyfile": "key", "key_password_file": "none"},
        "key_password_file: {none}: No such file",
    ),
]


@pytest.mark.parametrize(
    ("options", "said"), BROKEN, ids=[row[1].partition(":")[0] + str(i) for i, row in enumerate(BROKEN)]
)
def test_a_context_that_cannot_be_made_says_why(
    files: dict[str, str], options: dict[str, str], said: str
) -> None:
    with pytest.raises(ValueError) as wrong:
        server_context(TlsConfig(**{key: files[name] for key, name in options.items()}))  # type: ignore[arg-type]
    assert str(wrong.value).startswith(said.format(**files))


def test_ciphers_that_nobody_knows(files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="ciphers: OpenSSL knows none of 'NONSENSE'"):
        server_context(TlsConfig(certfile=files["server"], keyfile=files["server"], ciphers="NONSENSE"))


def test_strict_checks_can_be_chosen(files: dict[str, str]) -> None:
    def flags(strict: bool | None) -> int:
        server = files["server"]
        return server_context(TlsConfig(certfile=server, keyfile=server, strict_x509=strict)).verify_flags

    assert flags(True) & ssl.VERIFY_X509_STRICT
    assert not flags(False) & ssl.VERIFY_X509_STRICT
    python = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).verify_flags
    assert flags(None) == python
