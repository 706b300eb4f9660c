"""Many threads accept from one Listener while others change its options: each connection goes to exactly one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from peers import V2
from proxyproto_rs import AddressSet, Listener
from siege.crowd import Crowd

THREADS = 8
CONNECTIONS = 2_000
BATCH = 100


def test_each_connection_is_accepted_once_while_options_change() -> None:
    deny = AddressSet()
    finished = threading.Event()
    with (
        Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"], deny=deny, backlog=64) as listener,
        Crowd() as crowd,
        ThreadPoolExecutor(THREADS + 1) as pool,
    ):
        accepting = [pool.submit(accept_all, listener) for _ in range(THREADS)]
        changing = pool.submit(keep_changing, listener, deny, finished)
        try:
            for start in range(0, CONNECTIONS, BATCH):
                for number in range(start, start + BATCH):
                    crowd.connect(listener.getsockname(), V2 + number.to_bytes(4, "big"))
                crowd.watch_all()
        finally:
            finished.set()
            changes = changing.result()
            listener.close()  # wakes all that wait
        numbers = [number for thread in accepting for number in thread.result()]
        assert changes >= 1
        assert sorted(numbers) == list(range(CONNECTIONS))
        assert listener.stats()["v2"] == CONNECTIONS


def accept_all(listener: Listener) -> list[int]:
    numbers: list[int] = []
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return numbers
        with sock:
            numbers.append(int.from_bytes(sock.recv(4), "big"))


def keep_changing(listener: Listener, deny: AddressSet, finished: threading.Event) -> int:
    """Change options that affect no connection here, at most a thousand times a second.

    Return how many changes there were.
    """
    changes = 0
    while not finished.wait(0.001) or not changes:
        deny.add(f"198.18.{changes % 256}.0/24", expires=0.01)
        listener.update(max_pending=1000 + changes % 10, header_timeout=5.0 + changes % 2)
        assert listener.stats().pauses == 0
        changes += 1
    return changes
