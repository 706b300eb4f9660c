"""What the operator's verbs share: the way to a broker's API, and how rows are shown.

The broker is named by ``--config``, or by the variables PROXYPROTO_RS_URL and PROXYPROTO_RS_TOKEN.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .colours import Colours, printable
from .trouble import Trouble
from .watching import Watch

if TYPE_CHECKING:
    from proxyproto_rs.mqtt.config import BrokerConfig

FOUND, NOTHING, TROUBLE = 0, 1, 2
"""The exit statuses."""

_TIMEOUT = 10.0  # seconds
_SILENCE = 60.0  # seconds without a sign of life of the events; the broker gives one every 15 s
_LINE = 1024 * 1024  # bytes of an event's line
_ANSWER = 64 * 1024 * 1024  # bytes; a page of 1000 sessions takes less than one million

Column = tuple[str, Callable[[dict[str, Any]], Any]]
"""The head of a column, and what of a row stands in it."""


class Api:
    """The API of one broker."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise Trouble(f"PROXYPROTO_RS_URL must begin with http:// or https:// (got {url!r})")
        self._url = url.rstrip("/")
        self._token = token
        handlers = [] if context is None else [urllib.request.HTTPSHandler(context=context)]
        # No proxy of the environment: the token is for the broker alone.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)

    def ask(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        """Ask, and return what the JSON of the answer holds. Parameters that are None are left out. Raises Trouble."""
        query = urllib.parse.urlencode(
            {name: value for name, value in parameters.items() if value is not None}
        )
        data = None if body is None else json.dumps(body).encode()
        with self._answered(method, path + (f"?{query}" if query else ""), data, _TIMEOUT) as answer:
            return json.loads(answer.read(_ANSWER))

    def events(self) -> Iterator[bytes]:
        """Yield the lines of the events until the broker ends them. Raises Trouble."""
        with self._answered("GET", "/api/events", None, _SILENCE) as answer:
            while line := answer.readline(_LINE):
                yield line

    @contextlib.contextmanager
    def _answered(self, method: str, path: str, data: bytes | None, timeout: float) -> Iterator[Any]:
        request = urllib.request.Request(  # noqa: S310 (the constructor has checked the scheme)
            self._url + path,
            data,
            {"X-Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                yield answer
        except urllib.error.HTTPError as refused:
            with refused:
                raise Trouble(_message(refused), refused.code) from None
        except (OSError, ValueError, http.client.HTTPException) as wrong:
            reason = wrong.reason if isinstance(wrong, urllib.error.URLError) else wrong
            raise Trouble(f"{self._url} cannot be asked: {reason}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a broker, and those that say how to show rows."""
    parser.add_argument(
        "--config", metavar="FILE", help="the broker's configuration: where its API is, and its token"
    )
    parser.add_argument("--json", action="store_true", help="print what the API answers")
    parser.add_argument(
        "--watch", action="store_true", help="look again whenever something happens, until interrupted"
    )


def add_to_action(action: argparse.ArgumentParser) -> None:
    """Let the options of the verb stand behind its action too."""
    action.add_argument(
        "--config", metavar="FILE", default=argparse.SUPPRESS, help="the broker's configuration"
    )
    action.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print what the API answers"
    )


def add_client_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose clients by address, client id and user name."""
    parser.add_argument(
        "--ip", metavar="ADDRESS", help="a part of the address, or a network such as 192.0.2.0/24"
    )
    parser.add_argument("--client", metavar="TEXT", help="a part of the client id")
    parser.add_argument("--user", metavar="TEXT", help="a part of the user name")


def add_limit(parser: argparse.ArgumentParser, default: int = 50) -> None:
    """Add the option that limits the rows."""
    parser.add_argument(
        "--limit",
        type=int,
        default=default,
        metavar="N",
        help="how many rows, at most 1000; default %(default)s",
    )


@contextlib.contextmanager
def reported(verb: str) -> Iterator[None]:
    """Print trouble as one line, and leave with its status."""
    try:
        yield
    except Trouble as trouble:
        sys.stderr.write(f"proxyproto-rs {verb}: {printable(str(trouble))}\n")
        raise SystemExit(NOTHING if trouble.status == 404 else TROUBLE) from None  # noqa: PLR2004 (not found)


def connect(arguments: argparse.Namespace, *, needs_token: bool = True) -> Api:
    """Find the broker. Raises Trouble."""
    url, token = os.environ.get("PROXYPROTO_RS_URL"), os.environ.get("PROXYPROTO_RS_TOKEN")
    if arguments.config is None:
        if not url or (needs_token and not token):
            variables = "PROXYPROTO_RS_URL and PROXYPROTO_RS_TOKEN" if needs_token else "PROXYPROTO_RS_URL"
            raise Trouble(f"which broker? Give --config FILE, or set {variables}")
        return Api(url, token or "")
    from proxyproto_rs.mqtt.config import ConfigError, load

    try:
        config = load(arguments.config, usable=False).config
        url, context = (url, None) if url else (_url_of(config), _context_of(config))
        if needs_token and not token:
            token = _token_of(config)
        return Api(url, token or "", context)
    except ConfigError as wrong:
        raise Trouble(str(wrong)) from None


def show(
    api: Api,
    arguments: argparse.Namespace,
    ask: Callable[[], Any],
    columns: Sequence[Column],
    rows_of: Callable[[Any], Any],
) -> int:
    """Print rows once, or again and again with --watch. Return whether there were any, as an exit status."""
    if not arguments.watch:
        found = ask()
        rows = rows_of(found)
        print(json.dumps(found, indent=1) if arguments.json else table(columns, rows))
        return FOUND if rows else NOTHING
    clear = "\x1b[2J\x1b[H" if sys.stdout.isatty() and not arguments.json else ""
    before = None
    for found in Watch(api).looks(ask):
        if found != before:
            print(
                clear + (json.dumps(found) if arguments.json else table(columns, rows_of(found))), flush=True
            )
        before = found
    return FOUND


def table(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> str:
    """Return a table. On a terminal it is as wide as that at most: the widest columns are cut."""
    if not rows:
        return "(none)"
    cells = [[_shown(value(row)) for _, value in columns] for row in rows]
    heads = [head for head, _ in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    if sys.stdout.isatty():
        widths = _fitting(widths, shutil.get_terminal_size().columns)
    colours = Colours(sys.stdout)
    lines = [colours.bold(_line(heads, widths)), *(_line(row, widths) for row in cells)]
    return "\n".join(lines)


def moment(ms: int) -> str | None:
    """Return a time of the API in the local time zone; None for never."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) if ms else None


def duration(text: str) -> int:
    """Parse 90s, 10m, 24h or 3d into seconds, for argparse."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})(s|m|h|d)", text.strip().lower())
    if found is None:
        raise ValueError(text)
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _fitting(widths: list[int], most: int) -> list[int]:
    """Cut the widest columns until the line fits, but none below 6 characters."""
    widths, least = list(widths), 6
    while sum(widths) + 2 * (len(widths) - 1) > most and max(widths) > least:
        widest = widths.index(max(widths))
        widths[widest] -= 1
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    cut = [
        cell if len(cell) <= width else cell[: width - 1] + "…"
        for cell, width in zip(cells, widths, strict=True)
    ]
    return "  ".join(cell.ljust(width) for cell, width in zip(cut, widths, strict=True)).rstrip()


def _shown(value: Any) -> str:
    return "-" if value is None else printable(str(value))


def _message(refused: urllib.error.HTTPError) -> str:
    try:
        answer = json.loads(refused.read(65536))
        return (
            f"not ready: {'; '.join(answer['notReady'])}" if "notReady" in answer else str(answer["message"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return f"the answer was {refused.code} {refused.reason}"


def _url_of(config: BrokerConfig) -> str:
    http = config.http
    if not config.serves_http:
        raise Trouble("the configuration has no section http: the broker serves no API")
    if http.proxy_protocol == "required":
        raise Trouble("the API wants a PROXY header: set PROXYPROTO_RS_URL to the proxy in front of it")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.bind.host, http.bind.host)  # noqa: S104 (read)
    host = f"[{host}]" if ":" in host else host
    return f"{'http' if http.tls is None else 'https'}://{host}:{http.bind.port}"


def _token_of(config: BrokerConfig) -> str:
    from pathlib import Path

    from proxyproto_rs.mqtt.http.tokens import token_file

    http = config.http
    for token in (http.token, http.read_token if http.token_file is None else None):
        if token is not None:
            return token.get_secret_value()
    path = Path(http.token_file) if http.token_file is not None else token_file(config)
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "it is not ASCII text"
        raise Trouble(f"the token in {path} cannot be read: {reason}; set PROXYPROTO_RS_TOKEN") from None


def _context_of(config: BrokerConfig) -> ssl.SSLContext | None:
    """Trust the broker's own certificate and no other. Its name may be any: the address came from the same file."""
    tls = config.http.tls
    if tls is None:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(tls.certfile)
    except (OSError, ValueError) as wrong:
        raise Trouble(
            f"http.tls.certfile: {tls.certfile}: {getattr(wrong, 'strerror', None) or wrong}"
        ) from None
    return context
