"""The section `blocklists`: networks that others name, and that are kept out as blocks are."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from typing_extensions import Self

from .section import Section
from .values import Duration, Size

_FILE_EVERY, _URL_EVERY = 10.0, 3600.0  # seconds


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(sign.isspace() for sign in value):
        raise ValueError("must be a URL such as https://HOST/PATH")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]


def _scope(value: object) -> object:
    return value.capitalize() if isinstance(value, str) else value


Scope = Annotated[Literal["Ip", "Range"], BeforeValidator(_scope)]


class CrowdsecConfig(Section):
    """The local API of CrowdSec, which tells of decisions."""

    url: HttpUrl
    key_file: str
    every: Duration = 10.0
    scopes: tuple[Scope, ...] = Field(default=("Ip", "Range"), min_length=1)

    @field_validator("url")
    @classmethod
    def _is_its_base(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            raise ValueError("must be the address of the API alone, such as http://127.0.0.1:8080")
        return url.rstrip("/")


class BlocklistConfig(Section):
    """One list. Exactly one of `crowdsec`, `file` and `url` is set."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = ""
    crowdsec: CrowdsecConfig | None = None
    file: str | None = None
    url: HttpUrl | None = None
    every: Duration | None = None
    timeout: Duration = 30.0
    max_size: Size = 64 * 1024 * 1024

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if sum(source is not None for source in (self.crowdsec, self.file, self.url)) != 1:
            raise ValueError("must name one source: crowdsec, file or url")
        if self.crowdsec is not None and self.every is not None:
            raise ValueError("has every beside crowdsec: write it under crowdsec")
        return self

    @property
    def kind(self) -> Literal["crowdsec", "file", "url"]:
        """What it is read from."""
        return "crowdsec" if self.crowdsec is not None else "file" if self.file is not None else "url"

    @property
    def label(self) -> str:
        """Its name in logs, rows and metrics: `name`, or else `crowdsec`, the file's name, or the URL's host."""
        if self.name:
            return self.name
        if self.file is not None:
            return PurePath(self.file).name
        return "crowdsec" if self.url is None else urlsplit(self.url).hostname or "url"

    @property
    def interval(self) -> float:
        """The seconds between two looks."""
        if self.crowdsec is not None:
            return self.crowdsec.every
        return self.every or (_URL_EVERY if self.file is None else _FILE_EVERY)
