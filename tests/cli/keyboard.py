"""Ctrl-C for programs under test."""

from __future__ import annotations

import signal


def heed() -> None:
    """Let a new process heed SIGINT: a shell starts what it runs in the background, such as these tests, without."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
