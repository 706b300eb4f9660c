"""Fixtures that tests of several layers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peers import make_contexts

if TYPE_CHECKING:
    import ssl

# For tests of our own plugin. pytest wants this in the topmost conftest.
pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def tls_contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and the context of a client that trusts it as localhost."""
    return make_contexts(tmp_path_factory.mktemp("tls"))
