"""Forking: the background thread rests meanwhile, so that no child inherits a lock that it holds."""

from __future__ import annotations

import os

from . import _core

os.register_at_fork(
    before=_core._before_fork,
    after_in_parent=_core._after_fork_in_parent,
    after_in_child=_core._after_fork_in_child,
)
