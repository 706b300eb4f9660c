"""What annotations need from `typing` and Python 3.10 lacks, so that `typing.get_type_hints` works there too."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # So that mypy takes them for names of this module.
    from typing_extensions import Self as Self  # noqa: PLC0414
    from typing_extensions import Unpack as Unpack  # noqa: PLC0414
elif sys.version_info >= (3, 11):
    from typing import Self, Unpack
else:
    Self = Any

    class Unpack:
        """``Unpack[X]`` is X."""

        def __class_getitem__(cls, item: object) -> object:
            return item
