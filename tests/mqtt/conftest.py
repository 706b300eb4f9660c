"""Tests of the broker run on asyncio's own loop and leave nothing behind: no file, thread, task, or error of the loop."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

import leaks
from interop.certificates import Certificates, make

from . import postgres
from .backend.upstream.rabbitmq import Cluster

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": leaks.loop_factories()["asyncio"]}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    if opens_something(item):
        leaks.setup(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if opens_something(item):
        leaks.call()
    return outcome


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if opens_something(item):
        leaks.teardown(item)
    return outcome


def opens_something(item: pytest.Item) -> bool:
    """Whether to look for leaks, which costs garbage collections. A test without an event loop opens nothing."""
    return inspect.iscoroutinefunction(getattr(item, "function", None))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, a server's certificate and a client's."""
    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL that runs. A test that stops it starts it again."""
    pytest.importorskip("asyncpg", reason="asyncpg is not installed")
    programs = postgres.programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres.serving(programs) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes of RabbitMQ that run. A test that kills the second starts it again."""
    cluster = Cluster(tmp_path_factory.mktemp("rabbitmq"), size=2)
    with cluster.running():
        yield cluster


@pytest.fixture
async def database(postgres_server: postgres.Server) -> str:
    """The connection URI of a database without our tables."""
    import asyncpg

    connection = await asyncpg.connect(postgres_server.dsn())
    await connection.execute("DROP SCHEMA IF EXISTS proxyproto_rs CASCADE")
    await connection.close()
    return postgres_server.dsn()


@pytest.fixture(autouse=True)
def nothing_unhandled(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log line may say that an exception was not handled: amqtt logs that and goes on."""
    yield
    lines = [record.getMessage() for record in caplog.get_records("call")]
    assert not [line for line in lines if "nhandled" in line or "never retrieved" in line]
