"""Each source file of the package and of its bindings has a test file: one of its name, or the one that is named here.

The crates below have their tests in cargo. The tests of the broker and of the command line are ordered by what they do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SOURCES = sorted(
    str(path.relative_to(ROOT))
    for folder, pattern in (
        ("python/proxyproto_rs", "*.py"),
        ("python/proxyproto_rs/_loops", "*.py"),
        ("rust/python/src", "*.rs"),
    )
    for path in (ROOT / folder).glob(pattern)
)

# These have no public face of their own. They are tested through the face that users see.
TESTED_BY = {
    "python/proxyproto_rs/__init__.py": "test_exports.py",
    "python/proxyproto_rs/_annotations.py": "test_type_hints.py",
    "python/proxyproto_rs/explanations.py": "cli/test_explain.py",
    "python/proxyproto_rs/_get_header.py": "listener/test_proxied_socket.py",
    "python/proxyproto_rs/_loops/__init__.py": "test_exports.py",
    "python/proxyproto_rs/_loops/facts.py": "listener/test_serve.py",
    "python/proxyproto_rs/_loops/protocol.py": "listener/test_endings.py",
    "python/proxyproto_rs/_loops/selector.py": "listener/test_serve.py",
    "python/proxyproto_rs/_loops/which.py": "listener/test_as_sock.py",
    "python/proxyproto_rs/_without_acceptor.py": "test_without_acceptor.py",
    "python/proxyproto_rs/_wake_fd.py": "listener/test_close.py",
    "rust/python/src/broker.rs": "mqtt/backend/embedded/test_broker.py",
    "rust/python/src/endpoint.rs": "listener/test_proxied_socket.py",
    "rust/python/src/epoll.rs": "listener/test_close.py",
    "rust/python/src/connection.rs": "listener/test_proxied_socket.py",
    "rust/python/src/error.rs": "codec/test_exceptions.py",
    "rust/python/src/gateway.rs": "mqtt/front/test_core_gateway.py",
    "rust/python/src/gateway_channels.rs": "mqtt/front/test_core_channels.py",
    "rust/python/src/gateway_events.rs": "mqtt/front/test_core_gateway.py",
    "rust/python/src/gateway_options.rs": "mqtt/front/test_core_gateway.py",
    "rust/python/src/lib.rs": "test_exports.py",
    "rust/python/src/listener.rs": "listener/test_accept.py",
    "rust/python/src/listener_options.rs": "listener/test_options.py",
    "rust/python/src/path.rs": "codec/test_address.py",
    "rust/python/src/python_tls.rs": "mqtt/front/test_gate_alone.py",
    "rust/python/src/wording.rs": "listener/test_outcomes.py",
}


@pytest.mark.parametrize("source", SOURCES)
def test_source_has_a_test_file(source: str) -> None:
    if source in TESTED_BY:
        test_files = [ROOT / "tests" / TESTED_BY[source]]
    else:
        name = f"test_{Path(source).stem.removeprefix('_')}.py"
        test_files = [ROOT / "tests" / folder / name for folder in ("codec", "listener", "integrations")]
    assert any("def test_" in test_file.read_text() for test_file in test_files if test_file.exists()), (
        f"{source}: none of {[str(test_file.relative_to(ROOT)) for test_file in test_files]}"
    )


def test_only_what_exists_is_named() -> None:
    assert not TESTED_BY.keys() - set(SOURCES)
