"""Twisted serves a client behind a proxy, with the code of docs/howto/trio.md, on a reactor of the test's own."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory

from interop.clients import ANSWER, ask_in_lines
from interop.pages import run_example

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interop.certificates import Certificates
    from proxyproto_rs import Listener


# Twisted is partly typed, and its interfaces are unknown to type checkers.
new_reactor: Any = EPollReactor
load_certificate: Any = PrivateCertificate.loadPEM


@contextlib.contextmanager
def running_reactor(listener: Listener, tls: Any = None) -> Iterator[None]:
    reactor = new_reactor()

    def wrap(factory: Any) -> Any:
        # Without this it would use the clock of the global reactor, which does not run here.
        return factory if tls is None else TLSMemoryBIOFactory(tls, False, factory, clock=reactor)

    run_example("howto/trio.md", "twisted")["Acceptor"](reactor, listener, wrap)
    thread = threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    thread.start()
    try:
        yield
    finally:
        reactor.callFromThread(reactor.stop)
        thread.join()


def test_client_is_seen(listener: Listener) -> None:
    with running_reactor(listener):
        assert ask_in_lines(listener.getsockname(), None) == ANSWER


# Twisted calls pyOpenSSL in a way that pyOpenSSL deprecates. That is not our matter.
@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_client_is_seen_with_tls_behind_the_header(listener: Listener, certs: Certificates) -> None:
    options = load_certificate(certs.server.read_bytes()).options()
    with running_reactor(listener, options):
        assert ask_in_lines(listener.getsockname(), certs.client_context()) == ANSWER


def test_a_port_of_twisted_cannot_be_made_of_a_listener(listener: Listener) -> None:
    reactor = new_reactor()
    with pytest.raises(OSError, match="non-socket"):
        reactor.adoptStreamPort(listener.fileno(), listener.family, Factory())
