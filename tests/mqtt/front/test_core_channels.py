"""`_core.Channel`: TLS and WebSocket in front of a gateway, with Python's own clients."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import InvalidMessage
from websockets.sync.client import connect as ws_connect

from interop.certificates import CLIENT_NAME
from mqtt.peers import CLIENT, WELCOME, connect
from proxyproto_rs import AddressSet, Listener
from proxyproto_rs._core import Channel, Ended, Gateway, Login, Refused, Welcomed

from .scripted_server import Server
from .test_core_gateway import Front, header, options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interop.certificates import Certificates


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def serve(server: Server) -> Iterator[Any]:
    """Serve a listener through a channel."""
    opened: list[tuple[Gateway, Listener]] = []

    def serve(channel: Channel, mode: Any = "required") -> Front:
        gateway = Gateway(options(server.address))
        listener = Listener("127.0.0.1", 0, proxy_protocol=mode, trusted=["127.0.0.0/8"])
        opened.append((gateway, listener))
        listener.hand_to(gateway, name="it", max_unauthenticated=10, channel=channel)
        return Front(gateway, listener)

    yield serve
    for gateway, listener in opened:
        listener.close()
        gateway.close()


def tls(certificates: Certificates, **more: Any) -> dict[str, Any]:
    return {"certfile": certificates.server, **more}


def asking(certificates: Certificates) -> dict[str, Any]:
    return tls(certificates, cafile=str(certificates.authority), client_certificate="optional")


def test_a_certificate_names_its_device(certificates: Certificates, serve: Any) -> None:
    front = serve(Channel(tls=asking(certificates)))
    for with_certificate in (True, False):
        context = certificates.client_context(with_certificate=with_certificate)
        plain = front.dial(header())
        with context.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(connect("dev").encode())
            login = front.until(Login)
            arrival = login.arrival
            assert arrival.tls == (
                client.version(),
                (client.cipher() or ("",))[0],
                "localhost",
                CLIENT_NAME if with_certificate else None,
            )
            assert arrival.tls_has_more_names is False
            own = ssl.PEM_cert_to_DER_cert(certificates.client.read_text().partition("-----BEGIN PRIVATE")[0])
            assert arrival.tls_certificate == (own if with_certificate else None)
            assert front.gateway.admit(login.token)
            assert client.recv(4) == WELCOME
            front.until(Welcomed)
        front.until(Ended)


def test_a_failed_handshake_names_the_real_client(certificates: Certificates, serve: Any) -> None:
    front = serve(Channel(tls=tls(certificates)))
    with front.dial(header(), connect("dev").encode()) as client:
        refused = front.until(Refused)
        assert (refused.reason, refused.arrival.header.source) == ("tls-failed", CLIENT)
        assert refused.detail.startswith("wrong-version: ")
        assert client.recv(1) == b""


def test_a_websocket_in_tls_and_the_address_that_a_proxy_has_forwarded(
    certificates: Certificates, serve: Any
) -> None:
    denied = AddressSet()
    forwarded = {"trusted": ["127.0.0.0/8"], "denied": denied}
    websocket = {"path": "/mqtt", "subprotocols": ["mqtt"], "forwarded": forwarded, "max_message_size": 1000}
    front = serve(Channel(tls=tls(certificates), websocket=websocket), "off")

    def upgraded() -> Any:
        return ws_connect(
            "wss://localhost/mqtt",
            sock=socket.create_connection(front.listener.getsockname()[:2]),
            ssl=certificates.client_context(),
            subprotocols=["mqtt"],  # type: ignore[list-item]
            additional_headers={"X-Forwarded-For": "6.6.6.6, 203.0.113.9"},
        )

    with upgraded() as client:
        client.send(connect("dev").encode())
        login = front.until(Login)
        assert login.arrival.forwarded == ("203.0.113.9", 0)
        assert front.gateway.admit(login.token)
        assert client.recv() == WELCOME
        front.until(Welcomed)
    assert front.until(Ended).reason == "connection-lost"
    denied.add("203.0.113.0/24")
    with pytest.raises(InvalidMessage), upgraded():
        pass
    event = front.until(Refused)
    assert (event.reason, event.arrival.forwarded) == ("denied", ("203.0.113.9", 0))


def test_a_new_channel_is_for_new_connections(certificates: Certificates, serve: Any) -> None:
    front = serve(Channel(tls=tls(certificates)))
    assert front.gateway.change_listener("it", max_unauthenticated=10, channel=None)
    with front.dial(header(), connect("dev").encode()):
        assert front.until(Login).arrival.tls is None


def broken(certificates: Certificates) -> list[tuple[type[Exception], dict[str, Any], str]]:
    key_only = tls(certificates, keyfile=str(certificates.client))
    return [
        (ValueError, {}, "tls or websocket is needed"),
        (ValueError, {"tls": {}}, "certfile: is needed"),
        (ValueError, {"tls": {"certfile": "/none"}}, "certfile: /none: no such file"),
        (ValueError, {"tls": key_only}, "certfile: .* and .*: the key is not the certificate's"),
        (ValueError, {"tls": tls(certificates, ciphers="HIGH")}, 'ciphers: "HIGH" is no cipher suite'),
        (
            ValueError,
            {"tls": tls(certificates, min_version="SSLv3")},
            "tls.min_version: must be one of TLSv1.2",
        ),
        (ValueError, {"tls": {"certificates": [{}]}}, "tls.certificates.certfile: is needed"),
        (ValueError, {"websocket": {"path": "mqtt"}}, "ws.path: must start with a slash"),
        (TypeError, {"tls": {"certfil": ""}}, "unknown option tls.certfil"),
        (TypeError, {"websocket": {"pat": ""}}, "unknown option ws.pat"),
        (TypeError, {"websocket": {"forwarded": {"x": 1}}}, "unknown option ws.forwarded.x"),
    ]


def test_options_that_cannot_be_meant_say_why(certificates: Certificates) -> None:
    for kind, given, said in broken(certificates):
        with pytest.raises(kind, match=said):
            Channel(**given)
    with pytest.raises(ValueError, match=r"upstream\.tls\.cafile: is needed, or insecure: true"):
        Gateway.check(options("a:1", tls={}))
    Gateway.check(options("a:1", tls={"cafile": str(certificates.authority), "server_name": "b"}))
