"""What a pull of CrowdSec's decisions costs a broker: how long it takes, and for how long the event loop stands still.

Usage: mqtt_blocklists.py [DECISIONS]. The API is another process, and answers from a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import multiprocessing
import random
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxyproto_rs.mqtt.config.blocklists import BlocklistConfig
from proxyproto_rs.mqtt.tables.blocklists.networks import Protected
from proxyproto_rs.mqtt.tables.blocklists.sources import reader_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_DELTA = 500
_ROUNDS = 5


def decisions(count: int, chosen: random.Random) -> list[dict[str, Any]]:
    """Decisions as the API writes them: a tenth for IPv6, a tenth for an address that has another one."""
    addresses = [str(ipaddress.IPv4Address(chosen.getrandbits(32))) for _ in range(count)]
    for position in range(0, count, 10):
        addresses[position] = str(ipaddress.IPv6Address(chosen.getrandbits(128)))
        addresses[position - 1] = addresses[position - 2]
    return [
        {
            "duration": f"{chosen.randrange(1, 167)}h{chosen.randrange(60)}m{chosen.random() * 60:.9f}s",
            "id": number,
            "origin": "CAPI",
            "scenario": "crowdsecurity/http-probing",
            "scope": "Ip",
            "type": "ban",
            "uuid": f"{chosen.getrandbits(128):032x}",
            "value": address,
        }
        for number, address in enumerate(addresses)
    ]


def serve(answers: dict[str, bytes], ready: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers["true" if "startup=true" in self.path else "false"]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_address[1])
    server.serve_forever()


@contextlib.contextmanager
def serving(answers: dict[str, bytes]) -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(answers, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


class Gaps:
    """How long the event loop did nothing else, in milliseconds."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    async def watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.gaps.append(max(0.0, (now - last) * 1000 - 1))
            last = now

    def __str__(self) -> str:
        gaps = sorted(self.gaps)
        return f"p50 {gaps[len(gaps) // 2]:.1f}, p99 {gaps[len(gaps) * 99 // 100]:.1f}, longest {gaps[-1]:.1f} ms"


async def measured(what: str, work: Any) -> Any:
    gaps = Gaps()
    watch = asyncio.create_task(gaps.watch())
    await asyncio.sleep(0.05)
    began, cpu = time.perf_counter(), time.process_time()
    result = await work
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    await asyncio.sleep(0.01)
    watch.cancel()
    print(f"{what:<28} {took * 1000:7.0f} ms, CPU {cpu * 1000:6.0f} ms; the event loop stood still: {gaps}")
    return result


async def main(count: int) -> None:
    chosen = random.Random(1)
    all_of_them = decisions(count, chosen)
    changes = decisions(_DELTA, chosen)
    for change in changes:
        change["id"] += count
    startup = json.dumps({"deleted": None, "new": all_of_them}).encode()
    delta = json.dumps({"deleted": all_of_them[:_DELTA], "new": changes}).encode()
    print(f"{count} decisions, {len(startup) / 1e6:.1f} MB")
    protected = Protected([ipaddress.ip_network("10.0.0.0/8")])
    with serving({"true": startup, "false": delta}) as url, tempfile.TemporaryDirectory() as directory:
        key = Path(directory) / "key"
        key.write_text("key")
        config = BlocklistConfig.model_validate({"crowdsec": {"url": url, "key_file": str(key)}})
        await measured("json.loads in a thread", asyncio.to_thread(json.loads, startup))
        for _ in range(_ROUNDS):
            reader = reader_of(config)
            await measured("the first pull", reader.read(protected, anew=False))
            await measured("a pull of changes", reader.read(protected, anew=False))
            await measured("a pull of all again", reader.read(protected, anew=True))
        print(f"{reader.networks()} networks")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 70_000))
