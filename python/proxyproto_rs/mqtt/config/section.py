"""What every section of the file has in common: frozen, and no unknown keys."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of the file whose keys are all known."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, validate_default=False, arbitrary_types_allowed=True
    )
