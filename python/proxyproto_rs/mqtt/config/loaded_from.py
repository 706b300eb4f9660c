"""Where a configuration came from, so that it can be loaded again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from .loading import Loaded


@dataclass(frozen=True, slots=True)
class LoadedFrom:
    """The arguments of `BrokerConfig.load`."""

    path: str | os.PathLike[str] | None
    environ: Mapping[str, str] | None
    """None is the process's environment, as it is when it is read."""
    allow_anonymous: bool

    def load(self) -> Loaded:
        """Load it again, as it is now."""
        from .loading import load

        return load(self.path, environ=self.environ, allow_anonymous=self.allow_anonymous)
