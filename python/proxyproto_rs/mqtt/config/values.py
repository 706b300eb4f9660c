"""Values as people write them in the file: durations, sizes, networks, addresses to bind, rates.

Every parser takes what YAML or a variable gives, and returns a value that is valid from then on. It raises
ValueError with a text that follows the key's name ("must be ...").
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from ..model.networks import IPNetwork, parse_network

TRUE_WORDS = frozenset({"true", "on", "yes", "1"})
FALSE_WORDS = frozenset({"false", "off", "no", "0"})

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}


def parse_bool(value: Any) -> bool:
    """Parse true/on/yes/1 or false/off/no/0 in any case, as TBMQ's variables are written."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError("must be true or false")


def parse_int(value: Any) -> int:
    """Parse a whole number. A YAML boolean such as `on` is not one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
        return int(value)
    raise ValueError("must be a whole number")


def parse_float(value: Any) -> float:
    """Parse a number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", value.strip()):
        return float(value)
    raise ValueError("must be a number")


def parse_duration(value: Any) -> float:
    """Parse seconds as a number, or a number with ms, s, m, h or d: `5s`, `10m`, `1.5h`, `3d`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        match = re.fullmatch(r"([+-]?[0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)?", value.strip().lower())
        if match:
            return float(match[1]) * _UNITS[match[2] or "s"]
    raise ValueError("must be a duration: seconds, or a number with ms, s, m, h or d (5s, 10m, 24h, 3d)")


def parse_size(value: Any) -> int:
    """Parse bytes as a number, or a number with KiB, MiB, GiB (1024) or kB, MB, GB (1000)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        match = re.fullmatch(r"([+-]?[0-9]{1,15})\s*([a-z]{0,3})", value.strip().lower())
        if match and match[2] in _SIZES:
            return int(match[1]) * _SIZES[match[2]]
    raise ValueError("must be a size: bytes, or a number with KiB, MiB or GiB (64KiB, 1MiB)")


def parse_networks(value: Any) -> tuple[IPNetwork, ...]:
    """Parse a list of addresses and CIDRs. It may be a text with commas, so that a `${VARIABLE}` can hold it."""
    if isinstance(value, str):
        value = [part for part in re.split(r"[,\s]+", value.strip()) if part]
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError("must be a list of IP addresses and networks")
    parsed = []
    for item in value:
        try:
            parsed.append(parse_network(item))
        except ValueError as wrong:
            raise ValueError(f"{json.dumps(str(item)[:100])} {wrong}") from None
    return tuple(parsed)


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen on. An empty host means every address of both families."""

    host: str
    port: int
    systemd: str = ""
    """The FileDescriptorName of a socket that systemd holds. Then `host` and `port` are those of its socket unit."""

    def __str__(self) -> str:
        if self.systemd:
            return f"systemd:{self.systemd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind(value: Any) -> Bind:
    """Parse `host:port`, `:port`, `[::]:port` or a bare port."""
    if isinstance(value, Bind):
        return value
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    match = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\[\]:\s]*)):)?([0-9]{1,5})", text)
    if not match:
        raise ValueError('must be "host:port", ":port", "[IPv6]:port" or a port')
    if int(match[3]) > 65535:  # noqa: PLR2004 (the largest port there is)
        raise ValueError("has a port above 65535")
    return Bind(match[1] or match[2] or "", int(match[3]))


def parse_listener_bind(value: Any) -> Bind:
    """Parse what `parse_bind` does, or `systemd:NAME` for a socket that systemd passes."""
    if isinstance(value, str) and (match := re.fullmatch(r"systemd:([!-9;-~]{1,255})", value.strip())):
        return Bind("", 0, match[1])
    return parse_bind(value)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` in any period of `seconds`."""

    count: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.count}:{self.seconds:g}"


def parse_rates(value: Any) -> tuple[Rate, ...]:
    """Parse rates as TBMQ writes them: `10:1,300:60` is 10 in a second and 300 in a minute. Empty means no limit."""
    if isinstance(value, (list, tuple)) and all(isinstance(item, Rate) for item in value):
        return tuple(value)
    if value in (None, "", 0):
        return ()
    rates = []
    for part in str(value).split(","):
        match = re.fullmatch(r"\s*([1-9][0-9]{0,9}):([1-9][0-9]{0,9})\s*", part)
        if not match:
            raise ValueError('must be rates such as "10:1,300:60" (10 in 1 s and 300 in 60 s)')
        rates.append(Rate(int(match[1]), float(match[2])))
    return tuple(rates)


def parse_mode(value: Any) -> Any:
    """Parse `required`, `optional` or `off`. YAML reads a bare `off` as a boolean; TBMQ's variables are booleans."""
    if isinstance(value, str) and value.strip().lower() in ("required", "optional", "off"):
        return value.strip().lower()
    try:
        return "required" if parse_bool(value) else "off"
    except ValueError:
        raise ValueError("must be required, optional or off") from None


def refuse_unknown_store(text: str) -> None:
    """Raise ValueError unless a text names a store: `sqlite:PATH` or a connection URI of PostgreSQL."""
    if text.startswith("postgresql://"):
        try:
            host = urlsplit(text).netloc
        except ValueError:
            raise ValueError("must be a connection URI") from None
        # A bare "/", "?", "#" or "@" in a password ends the place where drivers look for it.
        if host.count("@") > 1 or host.count("@") != text.partition("?")[0].count("@"):
            raise ValueError("must have its user and password percent-encoded")
    elif not (text.startswith("sqlite:") and len(text) > len("sqlite:")):
        raise ValueError("must be sqlite:PATH, sqlite::memory: or postgresql://USER@HOST/DATABASE")


def format_duration(seconds: float) -> str:
    """Write seconds in the largest unit that gives a whole number: `3d`, `90s`, `0.5s`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"


def _none_is_no_limit(value: Any) -> Any:
    return 0 if value is None else value


Bool = Annotated[bool, BeforeValidator(parse_bool)]
Count = Annotated[int, BeforeValidator(parse_int), BeforeValidator(_none_is_no_limit), Field(ge=0)]
"""A limit. 0 means no limit."""
Positive = Annotated[int, BeforeValidator(parse_int), Field(gt=0)]
Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0), PlainSerializer(format_duration)]
"""Seconds, above 0."""
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""Bytes, above 0."""
Networks = Annotated[
    tuple[IPNetwork, ...],
    PlainValidator(parse_networks),
    PlainSerializer(lambda networks: [str(network) for network in networks]),
]
BindAddress = Annotated[Bind, PlainValidator(parse_bind), PlainSerializer(str)]
ListenerBind = Annotated[Bind, PlainValidator(parse_listener_bind), PlainSerializer(str)]
Rates = Annotated[
    tuple[Rate, ...],
    PlainValidator(parse_rates),
    PlainSerializer(lambda rates: ",".join(str(rate) for rate in rates)),
]
Mode = Annotated[Literal["required", "optional", "off"], BeforeValidator(parse_mode)]
"""How a listener treats PROXY headers."""
