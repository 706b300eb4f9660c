"""Reading a header in Python and asking for the client's address: us against readers in Python.

    python benches/parse.py [ROUNDS]

Prints nanoseconds of CPU, and how many times faster we are. Each ratio is of one round.
"""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

from readers import READERS, headers
from rounds import Spread, in_turns, ratio, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from readers import Reader

ROUNDS = 101
# Long compared with reading the clock, and short compared with a time slice.
SECONDS = 0.004
TARGETS = {"by hand": 3.5, "icgood": 20.0}
TARGET_OF_GEOMETRIC_MEAN = 5.0


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    times, ratios = [], []
    against_hand_written = []
    for name, (data, _) in headers().items():
        readers = {name: reader for name, reader in READERS.items() if reader.understands(data)}
        results = in_turns(rounds, {name: measurement(reader, data) for name, reader in readers.items()})
        times.append([name, *(nanoseconds(results.get(reader)) for reader in READERS)])
        spreads = {reader: ratio(results[reader], results["ours"]) for reader in results}
        against_hand_written.append(spreads["by hand"].median)
        ratios.append([name, *(spreads.get(reader, "refuses") for reader in READERS if reader != "ours")])
    print(f"ns of CPU for parse(...) and .source, median of {rounds} rounds:\n")
    table(["header", *READERS], times)
    print("How many times faster we are (quartiles):\n")
    table(["header", *(reader for reader in READERS if reader != "ours")], ratios)
    mean = math.prod(against_hand_written) ** (1 / len(against_hand_written))
    print(f"Geometric mean against the hand-written one: {mean:.2f}; to reach: {TARGET_OF_GEOMETRIC_MEAN}.")
    for rival, target in TARGETS.items():
        print(f"To reach on every line against {rival}: {target}.")


def measurement(reader: Reader, data: bytes) -> Callable[[], float]:
    """Return a function that measures the reader once, in seconds for each call."""
    timer = reader.timer(data, time.thread_time)
    calls = 1
    while timer.timeit(calls) < SECONDS:
        calls *= 2
    return lambda: timer.timeit(calls) / calls


def nanoseconds(seconds: list[float] | None) -> str:
    return "refuses" if seconds is None else f"{Spread(seconds).median * 1e9:.0f}"


if __name__ == "__main__":
    main()
