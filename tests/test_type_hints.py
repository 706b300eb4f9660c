"""`typing.get_type_hints` works on all that is public: for frameworks that read annotations, and for readers in a shell."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import pkgutil
import typing
from typing import Any

import pytest
from typing_extensions import assert_type

import proxyproto_rs
from proxyproto_rs import Listener, Server

MODULES = [
    "proxyproto_rs",
    *(
        f"proxyproto_rs.{module.name}"
        for module in pkgutil.iter_modules(proxyproto_rs.__path__)
        if module.name[0] != "_"
    ),
]
CALLED_BY_SYNTAX = {
    *(
        "__init__",
        "__call__",
        "__enter__",
        "__exit__",
        "__iter__",
        "__next__",
        "__contains__",
        "__getitem__",
        "__len__",
    ),
    *("__aenter__", "__aexit__", "__aiter__", "__anext__"),
}


def annotated(module: str) -> dict[str, Any]:
    """Each public class, function and method of ours by its name."""
    found: dict[str, Any] = {}
    names = importlib.import_module(module)
    for name in getattr(names, "__all__", ()):
        value = getattr(names, name)
        if inspect.isclass(value):
            found[name] = value
            for member in dir(value):
                method = inspect.getattr_static(value, member, None)
                method = getattr(method, "__func__", getattr(method, "fget", method))
                if inspect.isfunction(method) and (member[0] != "_" or member in CALLED_BY_SYNTAX):
                    found[f"{name}.{member}"] = method
        elif inspect.isfunction(value):
            found[name] = value
    # What comes from a base of the standard library or of another package is theirs.
    return {name: value for name, value in found.items() if value.__module__.startswith("proxyproto_rs")}


@pytest.mark.parametrize("module", MODULES)
def test_the_annotations_of_all_that_is_public_can_be_evaluated(module: str) -> None:
    try:
        public = annotated(module)
    except ImportError as missing:
        pytest.skip(f"an extra is not installed: {missing}")
    wrong = {}
    for name, value in public.items():
        try:
            typing.get_type_hints(value)
        except NameError as unknown:
            wrong[name] = str(unknown)
    assert not wrong


def test_there_is_something_to_evaluate() -> None:
    assert {"Listener", "Listener.update", "Listener.__aenter__", "open_streams"} <= annotated(
        "proxyproto_rs"
    ).keys()


def test_there_is_something_to_evaluate_of_the_broker() -> None:
    pytest.importorskip("pydantic")
    assert {"BrokerService.reload", "Sessions.find", "BrokerConfig.load"} <= annotated(
        "proxyproto_rs.mqtt"
    ).keys()


async def test_type_checkers_know_the_server_however_it_is_started() -> None:
    def handle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with Listener("127.0.0.1", 0, trusted=[]).start_server(handle) as entered:
        assert_type(entered, Server)
    async with await Listener("127.0.0.1", 0, trusted=[]).create_server(asyncio.Protocol) as awaited:
        assert_type(awaited, Server)
    async with proxyproto_rs.start_server(handle, ["127.0.0.1"], 0, trusted=[]) as on_hosts:
        assert_type(on_hosts, Server)
    task = asyncio.create_task(proxyproto_rs.create_server(asyncio.Protocol, "127.0.0.1", 0, trusted=[]))
    async with await task as in_a_task:
        assert_type(in_a_task, Server)
