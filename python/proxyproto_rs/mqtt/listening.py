"""Makes a Listener and a Door from a listener of the configuration, and changes both at a reload."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, cast

from proxyproto_rs import AddressSet, Listener

from .config import ConfigError, Problem
from .front.channels import channel_of
from .front.door import Door
from .model.connection import address_text
from .model.networks import parse_address
from .model.reasons import Refuse
from .policy.identity import Identity
from .telling.logs import endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from proxyproto_rs import ListenerStats, Refusal
    from proxyproto_rs._core import Channel

    from .config import ListenerConfig, MqttConfig
    from .policy.checks import Checks
    from .tables.blocklists.blocklists import Blocklists
    from .tables.blocks.blocked import Blocked

    OnRefused = Callable[[str, Container[str], Refusal], None]
    """Takes the listener's name, its trusted proxies, and what it refused."""

_NEEDS_A_NEW_SOCKET = ("backlog", "reuse_port", "proxy_protocol")


class Listening:
    """One open port. It is made in two steps, so that nothing is bound before all listeners are found valid."""

    def __init__(
        self,
        config: ListenerConfig,
        *,
        mqtt: MqttConfig,
        blocked: Blocked,
        blocklists: Blocklists,
        checks: Checks,
        on_refused: OnRefused,
    ) -> None:
        """Prepare the listener. Raises ConfigError for a certificate that cannot be used."""
        self.config: ListenerConfig = config
        self._blocked = blocked
        self._blocklists = blocklists
        self._checks = checks
        self._on_refused = on_refused
        self._deny = AddressSet()
        self._blocked_in_http = AddressSet()
        """What is blocked, for addresses from X-Forwarded-For, which only the gateway sees."""
        self.door: Door = Door(config.name, check_address=self._check_address)
        self.listener: Listener | None = None
        self._address = str(config.bind)
        self._adopt(config, self.prepare(config, mqtt))

    def bind(self) -> Listener:
        """Listen. Raises OSError with a text that names the listener."""
        self._follow_blocks()
        self._blocked.bind(self._blocked_in_http)
        self._blocklists.bind(self._blocked_in_http)
        try:
            self.listener = self._listen()
        except OSError as wrong:
            text = wrong.strerror or str(wrong)
            raise OSError(
                wrong.errno, f"listeners.{self.config.name}.bind: {self.config.bind}: {text}"
            ) from None
        self._address = str(endpoint(address_text(self.listener.getsockname())))
        return self.listener

    def prepare(self, config: ListenerConfig, mqtt: MqttConfig) -> Channel | None:
        """Build what `change` needs of a new configuration, and change nothing. Raises ConfigError."""
        return channel_in_front(config, mqtt, self._blocked_in_http)

    def change(self, config: ListenerConfig, channel: Channel | None) -> None:
        """Put a new configuration in force, for clients that come from now on."""
        old_deny, self._deny = self._deny, AddressSet()
        self._adopt(config, channel)
        self._follow_blocks()
        if self.listener is not None:
            options = self._options(config)
            for key in _NEEDS_A_NEW_SOCKET:
                del options[key]
            self.listener.update(**options)
        self._unbind(old_deny)

    def stats(self) -> ListenerStats:
        """Return the counts of its connections by outcome. They stay available after `close`."""
        assert self.listener is not None
        return self.listener.stats()

    def address(self) -> str:
        """Return where it listens, as `host:port`. It stays available after `close`."""
        return self._address

    def close(self) -> None:
        """Stop listening."""
        self._unbind(self._deny)
        self._unbind(self._blocked_in_http)
        if self.listener is not None:
            self.listener.close()

    def forbids(self, address: str) -> bool:
        """Whether the operator's own lists keep this client out."""
        parsed, proxy = parse_address(address), self.config.proxy
        if parsed is None:
            return False
        if any(parsed in network for network in proxy.deny):
            return True
        return bool(proxy.allow) and not any(parsed in network for network in proxy.allow)

    def _listen(self) -> Listener:
        bind, options = self.config.bind, self._options(self.config)
        if not bind.systemd:
            return Listener(bind.host or None, bind.port, on_refused=self._refused, **options)
        del options["reuse_port"]  # the socket unit decides it
        try:
            return Listener.from_systemd(bind.systemd, on_refused=self._refused, **options)
        except (RuntimeError, ValueError) as wrong:
            raise OSError(errno.ENOENT, str(wrong)) from None

    def _adopt(self, config: ListenerConfig, channel: Channel | None) -> None:
        self.config = config
        trusted = config.proxy.trusted
        self._trusted = None if trusted is None else AddressSet([str(network) for network in trusted])
        self.door.channel = channel
        self.door.identity = Identity(config.identity)
        self.door.trusted = cast("Container[str]", self._trusted) if self._trusted is not None else ()

    def _options(self, config: ListenerConfig) -> dict[str, Any]:
        options = config.listener_options()
        options["trusted"] = self._trusted
        options["deny"] = self._deny
        return options

    def _follow_blocks(self) -> None:
        for network in self.config.proxy.deny:
            self._deny.add(str(network))
        self._blocked.bind(self._deny, keep=self.config.proxy.deny)
        self._blocklists.bind(self._deny)

    def _unbind(self, addresses: AddressSet) -> None:
        self._blocked.unbind(addresses)
        self._blocklists.unbind(addresses)

    def _refused(self, refusal: Refusal) -> None:
        self._on_refused(self.config.name, self.door.trusted, refusal)

    def _check_address(self, address: str) -> None:
        """Check the address of a client from X-Forwarded-For, which no acceptor has checked."""
        if self.forbids(address):
            raise Refuse("denied", f"{address} is in deny, or not in allow")
        self._checks.address(address)


def channel_in_front(
    config: ListenerConfig, mqtt: MqttConfig, blocked: AddressSet | None = None
) -> Channel | None:
    """Return what the gateway puts in front of a listener's MQTT. Raises ConfigError."""
    try:
        return channel_of(config, mqtt.max_packet_size, AddressSet() if blocked is None else blocked)
    except ValueError as wrong:
        key, _, text = str(wrong).partition(": ")
        where = key.split(".") if key.startswith("ws.") else ("tls", key)
        raise ConfigError([Problem("", ("listeners", config.name, *where), text)]) from None
