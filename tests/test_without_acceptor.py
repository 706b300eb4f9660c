"""What the package offers where there is no acceptor. `.ci/portable` runs this and the codec's tests on such a build."""

from __future__ import annotations

import pytest

import proxyproto_rs
from proxyproto_rs import Header, _core, _without_acceptor, create_connection, parse

PORTABLE = {
    "Command",
    "Decoder",
    "Family",
    "Header",
    "IncompleteHeader",
    "InvalidHeader",
    "ProxyProtocolError",
    "SslInfo",
    "Transport",
    "__version__",
    "create_connection",
    "open_connection",
    "open_unix_connection",
    "parse",
    "parse_datagram",
}


def test_every_public_name_is_portable_or_has_a_stand_in() -> None:
    assert {*PORTABLE, *_without_acceptor.__all__} == set(proxyproto_rs.__all__)
    assert not PORTABLE & set(_without_acceptor.__all__)


@pytest.mark.parametrize("name", _without_acceptor.__all__)
def test_a_stand_in_says_where_it_works(name: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"^{name} works on Linux only, and this is .* container"):
        getattr(_without_acceptor, name)("0.0.0.0", 8000, trusted=["10.0.0.0/8"])


def test_so_does_each_way_to_make_a_listener() -> None:
    for name in ("unix", "adopt", "from_systemd"):
        with pytest.raises(NotImplementedError, match=rf"^Listener\.{name} works on Linux only"):
            getattr(_without_acceptor.Listener, name)("app")


def test_isinstance_answers() -> None:
    assert not isinstance(object(), _without_acceptor.Listener)
    assert issubclass(_without_acceptor.ProxiedSSLSocket, _without_acceptor.ProxiedConnection)


def test_a_build_without_the_acceptor_has_the_stand_ins() -> None:
    has_acceptor = hasattr(_core, "Acceptor")
    assert (vars(proxyproto_rs)["Listener"] is _without_acceptor.Listener) is not has_acceptor


def test_what_needs_no_acceptor_works() -> None:
    header = Header.v2(("192.0.2.1", 51724), ("198.51.100.2", 443))
    assert parse(header.encode()) == (header, 28)
    with pytest.raises(TypeError, match="header"):
        create_connection(("127.0.0.1", 1), header=None)  # type: ignore[arg-type]
