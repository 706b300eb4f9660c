"""Options: what is refused at construction and by update(), which changes all or nothing."""

from __future__ import annotations

import ipaddress
import threading
from typing import TYPE_CHECKING, Any

import pytest

from peers import V1, Peer, until
from proxyproto_rs import AddressSet, ClientLimits, Listener, ListenerOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRONG_VALUES: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"proxy_protocol": "on"},
        ValueError,
        r'proxy_protocol must be "required" or "optional" or "off", not \'on\'',
    ),
    ({"proxy_protocol": True}, TypeError, "proxy_protocol must be str, not bool"),
    ({"trusted": ["10.0.0.1/8"]}, ValueError, 'trusted: "10.0.0.1/8" has host bits set'),
    ({"trusted": ["proxy.example"]}, ValueError, 'trusted: "proxy.example" is not an IPv4 or IPv6 address'),
    ({"trusted": "10.0.0.0/8"}, TypeError, r"trusted must be an iterable .* did you mean \['10.0.0.0/8'\]\?"),
    ({"trusted": 5}, TypeError, "trusted must be an AddressSet or an iterable"),
    ({"trusted": [5]}, TypeError, "an entry of trusted must be str or an object of ipaddress, not int"),
    ({"untrusted": "serve"}, ValueError, 'untrusted must be "refuse" or "direct"'),
    ({"versions": ()}, ValueError, r"versions must hold 1, 2 or both, not \(\)"),
    ({"versions": (3,)}, ValueError, "versions must hold 1, 2 or both"),
    ({"max_header_size": 15}, ValueError, "max_header_size must be from 16 to 65551, not 15"),
    (
        {"header_timeout": 0},
        ValueError,
        "header_timeout must be greater than 0 and at most 3600 seconds, not 0",
    ),
    ({"header_timeout": float("nan")}, ValueError, "header_timeout must be greater than 0"),
    ({"header_timeout": None}, TypeError, "header_timeout must be a number of seconds, not NoneType"),
    ({"header_timeout": "5s"}, TypeError, "header_timeout must be a number of seconds, not str"),
    ({"max_pending": 0}, ValueError, "max_pending must be at least 1, not 0"),
    ({"defer_accept": 1}, TypeError, "defer_accept must be bool, not int"),
    ({"health_checks": "drop"}, ValueError, 'health_checks must be "deliver" or "close"'),
    ({"deny": ["::1/129"]}, ValueError, 'deny: "::1/129" is not'),
    ({"max_connections": 0}, ValueError, "max_connections must be at least 1"),
    ({"max_connections_per_client": -1}, ValueError, "max_connections_per_client must be at least 1"),
    ({"max_rate_per_client": 0}, ValueError, "max_rate_per_client must be greater than 0"),
    (
        {"max_rate_per_client": 1e-10},
        ValueError,
        "max_rate_per_client must be greater than 0, from 1e-9 to 1e9",
    ),
    ({"burst_per_client": 3}, ValueError, "burst_per_client means nothing without max_rate_per_client"),
    ({"client_limits": 5}, TypeError, "client_limits must be a ClientLimits or None, not int"),
    (
        {"client_limits": ClientLimits(max_connections=1), "max_connections_per_client": 1},
        ValueError,
        "client_limits stands in place of max_connections_per_client",
    ),
    ({"require_tls": "yes"}, TypeError, "require_tls must be bool, not str"),
    ({"proxy_protocol": "optional"}, ValueError, "trusted is needed"),
    ({"timeout": 5}, TypeError, "got an unexpected keyword argument 'timeout'"),
]


@pytest.mark.parametrize(
    ("options", "error", "text"), WRONG_VALUES, ids=[str(row[0]) for row in WRONG_VALUES]
)
def test_a_wrong_value_is_named_at_construction(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Listener("127.0.0.1", 0, **options)


@pytest.mark.parametrize(
    ("options", "error", "text"), WRONG_VALUES, ids=[str(row[0]) for row in WRONG_VALUES]
)
def test_a_wrong_value_changes_nothing(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with Listener("127.0.0.1", 0) as listener:
        before = dict(listener.options)
        with pytest.raises(error, match=text):
            listener.update(**{"header_timeout": 1.5, "max_connections": 7, **options})
        assert dict(listener.options) == before


MISSPELT: list[tuple[str, Callable[..., object]]] = [
    ("Listener", lambda _, **options: Listener("127.0.0.1", 0, **options)),
    ("Listener.unix", lambda _, **options: Listener.unix("/nowhere/at/all", **options)),
    ("Listener.adopt", Listener.adopt),
    ("Listener.from_systemd", lambda _, **options: Listener.from_systemd(**options)),
    ("Listener.update", lambda listener, **options: listener.update(**options)),
]


@pytest.mark.parametrize(("name", "call"), MISSPELT, ids=[name for name, _ in MISSPELT])
def test_a_misspelt_option_is_told_with_the_function_and_the_nearest_name(
    listener: Listener, name: str, call: Callable[..., object]
) -> None:
    with pytest.raises(TypeError) as caught:
        call(listener, allow=None, truested=["10.0.0.0/8"])
    assert str(caught.value) == (
        f"{name}() got an unexpected keyword argument 'truested'. Did you mean 'trusted'?"
    )


def test_the_nearest_name_may_be_a_parameter() -> None:
    with pytest.raises(TypeError, match=r"^Listener\(\) got .* 'backlogg'\. Did you mean 'backlog'\?$"):
        Listener("127.0.0.1", 0, backlogg=5)  # type: ignore[call-arg]


def test_a_name_like_no_other_gets_no_suggestion(listener: Listener) -> None:
    with pytest.raises(TypeError, match=r"^Listener\.update\(\) got .* 'xyz'$"):
        listener.update(xyz=5)  # type: ignore[call-arg]


def test_type_checkers_know_every_option() -> None:
    with Listener("127.0.0.1", 0) as listener:
        assert listener.options.keys() == ListenerOptions.__annotations__.keys()


def test_the_defaults() -> None:
    with Listener("127.0.0.1", 0) as listener:
        assert dict(listener.options) == {
            "proxy_protocol": "required",
            "trusted": None,
            "untrusted": "refuse",
            "versions": (1, 2),
            "max_header_size": 4096,
            "allow_mixed_families": False,
            "reject_unspec": False,
            "ignore_malformed_tlvs": False,
            "header_timeout": 5.0,
            "max_pending": 4096,
            "defer_accept": None,
            "health_checks": "deliver",
            "allow": None,
            "deny": None,
            "max_connections": None,
            "max_connections_per_client": None,
            "max_rate_per_client": None,
            "burst_per_client": None,
            "client_limits": None,
            "require_tls": False,
            "require_client_cert": False,
        }


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    changes: dict[str, Any] = {
        "proxy_protocol": "optional",
        "trusted": ["127.0.0.1", "::1"],
        "untrusted": "direct",
        "versions": (2,),
        "header_timeout": 1.5,
        "deny": ["192.0.2.0/24"],
        "max_connections_per_client": 3,
        "max_rate_per_client": 2.5,
    }
    with Listener("127.0.0.1", 0) as listener:
        before = dict(listener.options)
        listener.update(**changes)
        after = dict(listener.options)
    assert list(after.pop("trusted")) == ["127.0.0.1", "::1"]
    assert list(after.pop("deny")) == ["192.0.2.0/24"]
    expected = {**before, **changes, "burst_per_client": 3}
    del expected["trusted"], expected["deny"]
    assert after == expected


def test_networks_may_be_objects_of_ipaddress() -> None:
    proxies = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_address("2001:db8::1")]
    with Listener("127.0.0.1", 0, trusted=proxies) as listener:
        assert list(listener.options["trusted"]) == ["10.0.0.0/8", "2001:db8::1"]


def test_an_update_can_take_a_limit_away() -> None:
    with Listener("127.0.0.1", 0, max_connections=1, max_rate_per_client=1, deny=["192.0.2.1"]) as listener:
        listener.update(max_connections=None, max_rate_per_client=None, burst_per_client=None, deny=None)
        for option in ("max_connections", "max_rate_per_client", "burst_per_client", "deny"):
            assert listener.options[option] is None


def test_the_burst_goes_with_the_rate_unless_given() -> None:
    def limits(listener: Listener) -> tuple[float | None, int | None]:
        return listener.options["max_rate_per_client"], listener.options["burst_per_client"]

    with Listener("127.0.0.1", 0, max_rate_per_client=2) as listener:
        listener.update(max_rate_per_client=50)
        assert limits(listener) == (50, 50)
        listener.update(burst_per_client=7)
        listener.update(max_rate_per_client=60)
        assert limits(listener) == (60, 7)
        with pytest.raises(ValueError, match="burst_per_client means nothing without max_rate_per_client"):
            listener.update(max_rate_per_client=None)
        listener.update(burst_per_client=None)
        listener.update(max_rate_per_client=None)
        assert limits(listener) == (None, None)


def test_the_options_show_the_shared_objects() -> None:
    deny, limits = AddressSet(["192.0.2.1"]), ClientLimits(max_connections=1)
    with Listener("127.0.0.1", 0, deny=deny, client_limits=limits) as listener:
        assert listener.options["client_limits"] is limits
        deny.add("192.0.2.2")
        assert len(listener.options["deny"]) == 2


def test_the_options_cannot_be_changed_in_passing() -> None:
    with Listener("127.0.0.1", 0) as listener, pytest.raises(TypeError):
        listener.options["max_pending"] = 1  # type: ignore[index]


def test_an_update_from_another_thread_is_live() -> None:
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        thread = threading.Thread(target=listener.update, kwargs={"deny": ["192.0.2.0/24"]})
        thread.start()
        thread.join()
        with Peer(listener.getsockname(), V1) as peer:
            assert peer.sees_the_end()
        assert listener.stats()["denied"] == 1


def test_whoever_reads_the_options_does_not_wait_for_an_update() -> None:
    def proxies() -> Iterator[str]:
        half_read.set()
        assert read.wait(10), "the options wait for the update"
        yield "127.0.0.0/8"

    half_read, read = threading.Event(), threading.Event()
    with Listener("127.0.0.1", 0, trusted=[]) as listener:
        thread = threading.Thread(target=listener.update, kwargs={"trusted": proxies()})
        thread.start()
        half_read.wait()
        assert list(listener.options["trusted"]) == []
        listener.update(max_pending=7)
        read.set()
        thread.join()
        assert list(listener.options["trusted"]) == ["127.0.0.0/8"]
        assert listener.options["max_pending"] == 7


def test_an_update_from_required_to_off_lets_silent_peers_in() -> None:
    # Deferred accept would keep these silent peers in the kernel for a second.
    with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
        listener.update(proxy_protocol="off")
        with Peer(listener.getsockname()):
            until(lambda: listener.stats()["direct"] == 1)
