"""The parameters of requests as pydantic models. They are made of the dataclasses that the tables take."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from ..config.values import parse_bool
from ..model.paging import Paging, camel_case
from ..model.records import BlockQuery, BlockType, RegexMatchTarget, UnauthorizedQuery
from ..model.session_query import SessionQuery
from ..telling.analytics import By
from .errors import ApiError

Query = TypeVar("Query", bound=Paging)

_LONGEST = 1000  # characters of a parameter


class Parameters(BaseModel):
    """The parameters of one kind of request. Others are refused, so that a misspelt filter does not list everything."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=False, alias_generator=camel_case
    )


def _several(value: Any) -> Any:
    """Split `a,b`, as Spring's parameters are written. A parameter that is repeated comes as a list."""
    values = value if isinstance(value, list) else [value]
    return [part for one in values for part in str(one).split(",") if part]


def _word(value: Any) -> Any:
    try:
        return parse_bool(value)
    except ValueError:
        return value  # pydantic says what is wrong


def _model_of(query: type[Paging], name: str) -> type[Parameters]:
    hints = typing.get_type_hints(query)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(query):
        hint: Any = hints[field.name]
        if typing.get_origin(hint) is tuple:
            (item, *_) = typing.get_args(hint)
            if item is bool:
                item = Annotated[bool, BeforeValidator(_word)]
            hint = Annotated[tuple[item, ...], BeforeValidator(_several)]  # type: ignore[valid-type]  # made at run time
        elif field.name == "sort_property":
            hint = Literal[tuple(camel_case(column) for column in query.sort_properties)] | None
        elif hint == str | None or hint == typing.Optional[str]:  # noqa: UP045 (get_type_hints gives either)
            hint = Annotated[str, Field(max_length=_LONGEST)] | None
        fields[field.name] = (hint, field.default)
    return create_model(name, __base__=Parameters, **fields)


SessionParameters: type[Parameters] = _model_of(SessionQuery, "SessionParameters")
UnauthorizedParameters: type[Parameters] = _model_of(UnauthorizedQuery, "UnauthorizedParameters")
BlockParameters: type[Parameters] = _model_of(BlockQuery, "BlockParameters")


def query_of(kind: type[Query], parameters: BaseModel) -> Query:
    """Turn parameters into the query of a table. Raises ApiError for what the table refuses."""
    values = {field.name: getattr(parameters, field.name) for field in dataclasses.fields(kind)}
    column = values.get("sort_property")
    if column is not None:
        values["sort_property"] = next(name for name in kind.sort_properties if camel_case(name) == column)
    try:
        return kind(**values)
    except ValueError as wrong:
        field, _, text = str(wrong).partition(" ")
        raise ApiError(400, f"{camel_case(field)} {text}") from None


class ClientId(Parameters):
    """One session."""

    client_id: str


class SessionOf(Parameters):
    """One session, and the connection that it must still have."""

    client_id: str
    session_id: str | None = None


class UnauthorizedOf(Parameters):
    """The rows of one client id, of one address, or of both together. Without either: all rows."""

    client_id: str | None = None
    ip_address: str | None = None


class BlockOf(Parameters):
    """One block."""

    type: BlockType
    value: str
    regex_match_target: RegexMatchTarget | None = None


class TopParameters(Parameters):
    """What to rank, and how many to show."""

    by: By = "connects"
    prefix: Literal["32", "24"] = "32"
    limit: int = Field(default=20, ge=1, le=1000)


class AddressParameters(Parameters):
    """One address."""

    ip_address: str


class Nothing(Parameters):
    """No parameters."""


def read(model: type[BaseModel], given: Mapping[str, list[str]]) -> Any:
    """Read the parameters of a request. Raises ApiError that names all that are wrong."""
    values = {name: several[0] if len(several) == 1 else several for name, several in given.items()}
    try:
        return model.model_validate(values)
    except ValidationError as wrong:
        raise ApiError(400, text_of(wrong)) from None


def text_of(wrong: ValidationError) -> str:
    """Name everything that is wrong with a request."""
    return "; ".join(_text(error) for error in wrong.errors(include_url=False))[:_LONGEST]


def _text(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])[:100] or "request"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown parameter"
    if error["type"] == "missing":
        return f"{where}: is needed"
    return f"{where}: {error['msg'][:200]}"
