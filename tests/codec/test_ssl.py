"""`SslInfo`: the SSL TLV of a header (R37)."""

from __future__ import annotations

import copy
import pickle

import pytest

from proxyproto_rs import Header, SslInfo, parse

TLS, CERT_CONN, CERT_SESS = 0x01, 0x02, 0x04

SUB_TLVS = {
    "version": (0x21, b"TLSv1.3"),
    "cn": (0x22, "Zoë".encode()),
    "cipher": (0x23, b"TLS_AES_256_GCM_SHA384"),
    "sig_alg": (0x24, b"RSA-SHA256"),
    "key_alg": (0x25, b"RSA2048"),
    "group": (0x26, b"X25519MLKEM768"),
    "sig_scheme": (0x27, b"rsa_pss_rsae_sha256"),
    "client_cert": (0x28, b"0\x82\x01\x02"),
}


def header_with_ssl(client: int, verify: int = 0, *tlvs: tuple[int, bytes]) -> Header:
    value = bytes([client]) + verify.to_bytes(4, "big")
    for kind, sub_value in tlvs:
        value += bytes([kind]) + len(sub_value).to_bytes(2, "big") + sub_value
    block = bytes(12) + b"\x20" + len(value).to_bytes(2, "big") + value
    return parse(b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + len(block).to_bytes(2, "big") + block)[0]


def ssl_of(client: int, verify: int = 0, *tlvs: tuple[int, bytes]) -> SslInfo:
    ssl = header_with_ssl(client, verify, *tlvs).ssl
    assert ssl is not None
    return ssl


def test_every_field() -> None:
    ssl = ssl_of(TLS | CERT_CONN, 0, *SUB_TLVS.values())
    assert ssl.version == "TLSv1.3"
    assert ssl.cn == "Zoë"
    assert ssl.cipher == "TLS_AES_256_GCM_SHA384"
    assert ssl.sig_alg == "RSA-SHA256"
    assert ssl.key_alg == "RSA2048"
    assert ssl.group == "X25519MLKEM768"
    assert ssl.sig_scheme == "rsa_pss_rsae_sha256"
    assert ssl.client_cert == b"0\x82\x01\x02"
    assert ssl.tlvs == tuple(SUB_TLVS.values())


def test_no_field() -> None:
    ssl = ssl_of(0)
    assert [getattr(ssl, name) for name in SUB_TLVS] == [None] * len(SUB_TLVS)
    assert ssl.tlvs == ()


@pytest.mark.parametrize(
    ("client", "verify", "expected"),
    [
        (0, 0, (False, False, False, False)),
        (TLS, 0, (True, False, False, False)),  # HAProxy without a certificate
        (TLS, 1, (True, False, False, False)),  # nginx without a certificate
        (TLS | CERT_CONN, 0, (True, True, False, True)),
        (TLS | CERT_SESS, 0, (True, False, True, True)),
        (TLS | CERT_CONN | CERT_SESS, 0, (True, True, True, True)),
        (TLS | CERT_CONN, 18, (True, True, False, False)),
        (0xF8, 0xFFFFFFFF, (False, False, False, False)),
    ],
)
def test_bits_and_verification(client: int, verify: int, expected: tuple[bool, bool, bool, bool]) -> None:
    ssl = ssl_of(client, verify)
    assert (ssl.client_tls, ssl.client_cert_conn, ssl.client_cert_sess, ssl.verified) == expected
    assert ssl.verify == verify


@pytest.mark.parametrize("name", [name for name in SUB_TLVS if name != "client_cert"])
@pytest.mark.parametrize("value", [b"\xff", b"a\0", b"a\r\nb"], ids=["not-utf8", "nul", "line-break"])
def test_text_that_is_not_valid_has_no_view_and_stays_in_tlvs(name: str, value: bytes) -> None:
    kind, _ = SUB_TLVS[name]
    ssl = ssl_of(TLS, 0, (kind, value))
    assert getattr(ssl, name) is None
    assert ssl.tlvs == ((kind, value),)


@pytest.mark.parametrize("name", [name for name in SUB_TLVS if name not in {"client_cert", "cn"}])
def test_all_but_the_common_name_is_ascii(name: str) -> None:
    kind, _ = SUB_TLVS[name]
    assert getattr(ssl_of(TLS, 0, (kind, "é".encode())), name) is None


def test_is_a_value() -> None:
    ssl = ssl_of(TLS, 0, SUB_TLVS["version"])
    same = ssl_of(TLS, 0, SUB_TLVS["version"])
    other = ssl_of(TLS, 1, SUB_TLVS["version"])
    assert ssl == same
    assert hash(ssl) == hash(same)
    assert ssl != other
    assert ssl != ssl.tlvs
    assert pickle.loads(pickle.dumps(ssl)) == ssl
    assert copy.deepcopy(ssl) == ssl
    with pytest.raises(AttributeError):
        ssl.verify = 0  # type: ignore[misc]


def test_outlives_its_header() -> None:
    ssl = parse(header_with_ssl(TLS, 0, SUB_TLVS["cn"]).raw)[0].ssl
    assert ssl is not None
    assert ssl.cn == "Zoë"


def test_repr() -> None:
    ssl = ssl_of(TLS | CERT_CONN, 0, SUB_TLVS["version"], (0x22, b"o'neil"))
    assert repr(ssl) == """<SslInfo client_tls=True version='TLSv1.3' cn="o'neil" verified=True>"""
    assert repr(ssl_of(0)) == "<SslInfo client_tls=False version=None cn=None verified=False>"
