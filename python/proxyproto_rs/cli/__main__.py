"""Runs the command line for `python -m proxyproto_rs.cli`."""

from __future__ import annotations

import sys

from . import main

sys.exit(main())
