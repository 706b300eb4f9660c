"""Lists of networks in text: one a line, with comments behind `#` or `;`."""

from __future__ import annotations

from collections.abc import Iterator

from proxyproto_rs import AddressSet

from .networks import MOST_NETWORKS, Ignored, Protected, UnusableList, one_spelling, with_pauses


class Lines:
    """The networks of a list that always comes whole."""

    def __init__(self) -> None:
        self.addresses: AddressSet = AddressSet()
        self._networks: set[str] = set()

    def take(self, data: bytearray | bytes, protected: Protected) -> tuple[int, int, Ignored]:
        """Put the networks of a text in force, in place of those before. Return how many are new and how many gone.

        It takes about a second for 500,000 lines, so call it in a thread. Raises UnusableList; then nothing has changed.
        """
        networks, ignored = parse(data, protected)
        new, gone = networks - self._networks, self._networks - networks
        for network in with_pauses(new):
            self.addresses.add(network)
        for network in with_pauses(gone):
            self.addresses.discard(network)
        self._networks = networks
        return len(new), len(gone), ignored

    def __len__(self) -> int:
        return len(self._networks)


def parse(data: bytearray | bytes, protected: Protected) -> tuple[set[str], Ignored]:
    """Return the networks of a text, each in its one spelling.

    Raises UnusableList if it is no such list: a web server's page of an error has lines too, and none is a network.
    """
    networks: set[str] = set()
    ignored = Ignored()
    for number, word in with_pauses(_words(data)):
        try:
            network = one_spelling(word)
        except ValueError:
            ignored.add(_NO_NETWORK, f"line {number}: {word!r}")
            continue
        if protected.covers(network):
            ignored.add("a trusted proxy or loopback would be kept out", f"line {number}: {word}")
            continue
        networks.add(network)
        if len(networks) > MOST_NETWORKS:
            raise UnusableList(f"has more than {MOST_NETWORKS} networks")
    if ignored.counts[_NO_NETWORK] > len(networks):
        raise UnusableList(f"is no list of networks, one a line ({ignored.first[_NO_NETWORK]})")
    return networks, ignored


_NO_NETWORK = "no address and no network"


def _words(data: bytearray | bytes) -> Iterator[tuple[int, str]]:
    """Yield the first word of each line that has one, with the line's number."""
    start, number = 0, 0
    # Not splitlines: the lines of 64 MiB would take a second without a switch to the event loop.
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        line = data[start : min(end, start + _LONGEST)]
        start = end + 1
        words = line.decode("utf-8", "replace").lstrip("\ufeff").replace(";", "#").partition("#")[0].split()
        if words:
            yield number, words[0]


_LONGEST = 4096  # bytes of a line; what is behind them is a comment
