"""What annotations and `typing.get_type_hints` need: names that Python 3.10 lacks, and the public module of each class."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # mypy exports an import only under a name that is given with "as".
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


def move_to(module: str, public: Iterable[Any]) -> None:
    """Let classes and functions of private modules name `module` as theirs, as tracebacks and `help()` show it."""
    for value in public:
        if not getattr(value, "__module__", "").startswith(f"{module}._"):
            continue
        if inspect.isclass(value):
            # Annotations that are text would be looked up in the new module.
            value.__annotations__ = inspect.get_annotations(value, eval_str=True)
        value.__module__ = module
