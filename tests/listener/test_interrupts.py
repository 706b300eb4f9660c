"""Signals: a Python handler may raise, or close the Listener, at any instruction of accept()."""

from __future__ import annotations

import errno
import itertools
import signal
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from peers import V2, Peer, wait_readable
from proxyproto_rs import Listener, ProxiedSocket

if TYPE_CHECKING:
    from collections.abc import Callable


class Interrupt:
    """Runs a handler before the n-th instruction of what is called under it, as the interpreter does on a signal."""

    def __init__(self, number: int, handler: Callable[[], None]) -> None:
        self._left = number
        self._handler = handler
        self.has_run = False

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.has_run:
            self._left -= 1
            if self._left < 0:
                self.has_run = True
                self._handler()
        return self

    def call(self, function: Callable[[], Any]) -> Any:
        before = sys.gettrace()
        # Python 3.12 traces opcodes only if some frame asks for them before tracing begins.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self)
        try:
            return function()
        finally:
            sys.settrace(before)


def interrupt() -> None:
    raise KeyboardInterrupt


def accept(listener: Listener, interruption: Interrupt) -> ProxiedSocket | None:
    """Return what accept() returns, or None if it was interrupted or the Listener was closed meanwhile."""
    try:
        sock, _ = interruption.call(listener.accept)
    except (KeyboardInterrupt, TimeoutError):
        return None
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return None
    assert isinstance(sock, ProxiedSocket)
    return sock


def test_an_interruption_loses_no_connection() -> None:
    for number in itertools.count():
        with (
            Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener,
            Peer(listener.getsockname(), V2) as peer,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter(
                "ignore", ResourceWarning
            )  # nobody could close what accept() did not return
            assert wait_readable(listener.fileno())
            interruption = Interrupt(number, interrupt)
            sock = accept(listener, interruption)
            if not interruption.has_run:
                assert sock is not None
                sock.close()
                break
            del sock
            stats = listener.stats()
            assert stats.open == stats.ready, number
            if not stats.ready:
                assert peer.sees_the_end()
    assert number > 100


@pytest.mark.parametrize("data", [(), (V2,)], ids=["waiting", "ready"])
def test_a_handler_may_close_the_listener(data: tuple[bytes, ...]) -> None:
    for number in itertools.count():
        with (
            Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"], defer_accept=False) as listener,
            Peer(listener.getsockname(), *data),
        ):
            assert not data or wait_readable(listener.fileno())
            listener.settimeout(0.01)
            interruption = Interrupt(number, listener.close)
            sock = accept(listener, interruption)
            if sock is not None:
                sock.close()
            if not interruption.has_run:
                break
            assert listener._wake_fd._fd == -1
            assert listener.stats().open == 0
    assert number > 100


_WAITS_FOR_A_SIGNAL = """
import os, signal
from proxyproto_rs import Listener
with Listener("127.0.0.1", 0, trusted=["127.0.0.1"]):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.sigpending() == {signal.SIGTERM}
    assert signal.sigwait([signal.SIGTERM]) == signal.SIGTERM
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_that_the_program_waits_for_goes_to_nobody_else() -> None:
    process = subprocess.run([sys.executable, "-c", _WAITS_FOR_A_SIGNAL], capture_output=True, check=False)
    assert (process.returncode, process.stderr) == (-signal.SIGTERM, b"")
