"""The public names: all that were promised, each from the module that makes it, and no others."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pickle
import pkgutil
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import proxyproto_rs
from proxyproto_rs import _core, exceptions

PACKAGE = Path(inspect.getfile(proxyproto_rs)).parent

# Renaming or removing one of these breaks whoever uses it.
PROMISED = {
    *(
        "Listener",
        "ProxiedSocket",
        "AddressSet",
        "ClientLimits",
        "get_header",
        "open_streams",
        "open_transport",
    ),
    *("Server", "ListenerOptions", "OnRefused", "ProxiedConnection", "ProxiedSSLSocket"),
    *("create_connection", "open_connection", "open_unix_connection", "create_server", "start_server"),
    *("Header", "Command", "Family", "Transport", "SslInfo", "Decoder", "parse", "parse_datagram"),
    *("ProxyProtocolError", "IncompleteHeader", "InvalidHeader", "Refusal", "ListenerStats"),
    "__version__",
}

# The names that a reader calls.
CALLED = [
    *(
        "Listener",
        "ProxiedSocket",
        "AddressSet",
        "ClientLimits",
        "get_header",
        "open_streams",
        "open_transport",
    ),
    *("create_connection", "open_connection", "open_unix_connection", "create_server", "start_server"),
    *("Header", "Decoder", "parse", "parse_datagram"),
]

# What only the package itself uses of the core.
INTERNAL = {
    *("Acceptor", "Broker", "Connection"),
    *("Gateway", "Channel", "Arrival", "Connect", "Login", "Welcomed", "Refused", "Ended", "Traffic"),
    *("ListenerReport", "ServerChange"),
}

PRIVATE_MODULES = sorted(
    module.name.removeprefix("proxyproto_rs.")
    for module in pkgutil.walk_packages([str(PACKAGE)], "proxyproto_rs.")
    if module.name.startswith("proxyproto_rs._")
)

PUBLIC_MODULES = [
    "proxyproto_rs",
    *(
        f"proxyproto_rs.{module.name}"
        for module in pkgutil.iter_modules([str(PACKAGE)])
        if module.name[0] != "_"
    ),
]


def test_promised_names_are_exported() -> None:
    assert set(proxyproto_rs.__all__) == PROMISED
    assert len(proxyproto_rs.__all__) == len(PROMISED)


def test_exports_are_the_union_of_the_modules() -> None:
    names = {
        name
        for module in PRIVATE_MODULES
        if module != "_core"
        for name in getattr(importlib.import_module(f"proxyproto_rs.{module}"), "__all__", ())
    }
    names |= {name for name in _core.__all__ if name not in INTERNAL and re.match("__version__|[^_]", name)}
    names |= {name for name in exceptions.__all__ if inspect.isclass(getattr(exceptions, name))}
    assert set(proxyproto_rs.__all__) == names


@pytest.mark.parametrize("name", sorted(PROMISED - {"__version__", "OnRefused"}))
def test_export_is_documented(name: str) -> None:
    assert getattr(proxyproto_rs, name).__doc__


@pytest.mark.parametrize("name", CALLED)
def test_what_one_calls_shows_its_use(name: str) -> None:
    documentation = inspect.getdoc(getattr(proxyproto_rs, name)) or ""
    _, found, rest = documentation.partition("Typical use::\n\n")
    assert found, "no example"
    code = "".join(
        itertools.takewhile(lambda line: not line.strip() or line[0] == " ", rest.splitlines(keepends=True))
    )
    compile(textwrap.dedent(code), name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_public_names_stand_in_a_public_module(module: str) -> None:
    """Tracebacks, reprs and `help()` show `__module__`."""
    for name, value in defined_by_us(module):
        assert "._" not in value.__module__, name


@pytest.mark.parametrize("name", sorted(PROMISED - {"__version__", "OnRefused"}))
def test_export_is_found_by_pickle(name: str) -> None:
    public = getattr(proxyproto_rs, name)
    assert pickle.loads(pickle.dumps(public)) is public


@pytest.mark.parametrize(
    "value",
    [
        proxyproto_rs.Header.local(),
        proxyproto_rs.Family.INET,
        proxyproto_rs.IncompleteHeader(3),
        proxyproto_rs.InvalidHeader("bad-signature", 0, b"GET"),
        proxyproto_rs.Refusal("timeout", ("10.0.0.1", 5), None, "nothing came", b"", "0.0.0.0:80", 1, 0.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_can_be_pickled(value: object) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert type(copy) is type(value)
    assert repr(copy) == repr(value)


def defined_by_us(module: str) -> list[tuple[str, Any]]:
    """The public classes and functions of a module, with their names."""
    try:
        namespace = importlib.import_module(module)
    except ImportError as missing:
        pytest.skip(f"an extra is not installed: {missing}")
    public = [(name, getattr(namespace, name)) for name in getattr(namespace, "__all__", ())]
    return [
        (name, value)
        for name, value in public
        if getattr(value, "__module__", "").startswith("proxyproto_rs")
    ]


def test_star_import_brings_the_exports() -> None:
    namespace: dict[str, object] = {}
    exec("from proxyproto_rs import *", namespace)
    assert namespace.keys() - {"__builtins__"} == PROMISED


def test_version_is_that_of_the_workspace() -> None:
    cargo = Path(__file__).parents[1] / "Cargo.toml"
    version = re.search(r'^version = "([^"]+)"', cargo.read_text(), re.MULTILINE)
    assert version is not None
    assert proxyproto_rs.__version__ == version[1]


def test_types_are_published() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()
