"""What keeps a verb from its answer."""

from __future__ import annotations

_REFUSALS = range(400, 500)


class Trouble(Exception):
    """The broker cannot be asked, or it refuses. The text is for the person at the terminal."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status

    @property
    def is_refusal(self) -> bool:
        """Whether asking again would change nothing."""
        return self.status in _REFUSALS
