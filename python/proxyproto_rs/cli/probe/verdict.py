"""What the behaviour of a server, with headers and without, says about its configuration, and what to change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .asking import ANSWERED, MISUNDERSTOOD, Observation

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE, V1, V2, BROKEN_V1, BROKEN_V2 = "none", "v1", "v2", "broken-v1", "broken-v2"

WORDS = {
    NONE: "no header",
    V1: "version 1",
    V2: "version 2",
    BROKEN_V1: "broken, v1",
    BROKEN_V2: "broken, v2",
}
BROKEN = {V1: BROKEN_V1, V2: BROKEN_V2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a server does with a header, as seen from here."""

    name: str
    status: int
    """The exit status."""
    meaning: str
    remedy: str


_ON = "HAProxy: accept-proxy on the bind line. nginx: proxy_protocol on the listen line. proxyproto_rs: proxy_protocol="
_SEND = (
    "HAProxy: {haproxy} on the server line. nginx: proxy_protocol on{nginx}. "
    "AWS NLB: proxy_protocol_v2.enabled=true{nlb}"
)

REQUIRED = Verdict("required", 0, "The server wants a header, and serves nobody without one.", "")
OPTIONAL = Verdict(
    "optional",
    3,
    "The server serves connections with a header and without one.",
    "Let the proxy send a header. If nobody else connects, make the header required: then nobody can leave it out.",
)
OFF = Verdict(
    "off",
    4,
    "The server serves connections without a header. It does not take one from here.",
    "If a proxy in front sends one, take it out there (send-proxy in HAProxy). If the server should know its clients, "
    f'switch the header on. {_ON}"required" and trusted=. If it is on there, the server does not trust this address: '
    "probe from the proxy's machine.",
)
IGNORED = Verdict(
    "ignored",
    5,
    "The server answers even broken headers: it takes a header for data, and overlooks it.",
    f'It does not learn its clients. Switch the header on. {_ON}"required" and trusted=.',
)
UNCLEAR = Verdict(
    "unclear",
    6,
    "The server answered with no header and with none alike, so its behaviour does not tell.",
    "It may speak something else: try --mqtt, --http, --tls or --silent. It may not trust this address (trusted=): probe "
    "from the proxy's machine, and read the server's log. Or what it serves is down.",
)
UNREACHABLE = Verdict(
    "unreachable", 7, "Nobody can be reached there.", "Look at the address, the port and the firewall."
)
ANSWERS = Verdict(
    "answers", 0, "The server answers.", "Leave the options of variants out, to compare them all."
)
NO_ANSWER = Verdict(
    "no answer",
    6,
    "The server does not answer so.",
    "Leave the options of variants out, to compare them all.",
)


def takes(seen: Mapping[str, Observation]) -> list[str]:
    """Return the versions that were answered."""
    return [version for version in (V1, V2) if version in seen and seen[version].is_answered]


def judge(seen: Mapping[str, Observation]) -> Verdict:
    """Compare what the server did. All of `NONE`, `V1` and `V2` were tried, and the broken ones of answered versions."""
    answered = takes(seen)
    if not seen[NONE].is_answered:
        return _required(answered) if answered else UNCLEAR
    if not answered:
        return OFF
    if all(seen[BROKEN[version]].is_answered for version in answered):
        return IGNORED
    return OPTIONAL


def _required(versions: list[str]) -> Verdict:
    meaning, both = REQUIRED.meaning, len(versions) == 2  # noqa: PLR2004
    haproxy = "send-proxy-v2" if V2 in versions else "send-proxy"
    nginx = "" if V1 in versions else " sends version 1, which this server does not take"
    nlb = "" if V2 in versions else " sends version 2, which this server does not take"
    if not both:
        meaning += f" It takes {WORDS[versions[0]]} only."
    remedy = f"Let the proxy send it. {_SEND.format(haproxy=haproxy, nginx=nginx, nlb=nlb)}."
    return replace(REQUIRED, meaning=meaning, remedy=remedy)


def compare_greetings(seen: Mapping[str, Observation]) -> dict[str, Observation]:
    """Judge servers that speak first: one that says more after a header than without one objects to it."""
    without = seen.get(NONE)
    if without is None or not without.is_answered:
        return dict(seen)
    lines = without.answer.count(b"\n")
    return {
        variant: replace(one, ending=MISUNDERSTOOD, words=f"{one.words}, and objects")
        if one.ending == ANSWERED and one.answer.count(b"\n") > lines
        else one
        for variant, one in seen.items()
    }
