"""The OpenAPI document, made of the table of routes and the models that requests are read with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from proxyproto_rs import __version__

from .answers import Error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from .call import Route

_REFERENCES = "#/components/schemas/{model}"
_ERRORS = {
    400: "The request is wrong.",
    401: "The token is missing or wrong.",
    403: "The token may only read.",
    404: "There is no such thing.",
    409: "It cannot be done now, or would shut out a proxy.",
    421: "The server does not answer for that host.",
    429: "Too many wrong tokens came from this address.",
    503: "It cannot be answered now.",
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document as JSON has it."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    for path, content, summary, needs_token in (
        (
            "/metrics",
            "text/plain",
            "The counters for Prometheus. With http.metrics_auth they need a token",
            False,
        ),
        (
            "/api/events",
            "text/event-stream",
            "What happens, as Server-Sent Events of the audit log's objects",
            True,
        ),
        ("/api/openapi.json", "application/json", "This document", True),
    ):
        paths[path] = {"get": _plain(content, summary, needs_token=needs_token)}
    schemas |= _definitions(Error)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "proxyproto_rs broker",
            "version": __version__,
            "description": "Names are those of TBMQ, where TBMQ has them.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "tbmq": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Authorization",
                    "description": "`Bearer TOKEN`",
                },
            },
        },
        "security": [{"bearer": []}, {"tbmq": []}],
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    ok = {"description": "Done.", "content": {"application/json": {"schema": _schema(route.answer, schemas)}}}
    statuses = {400, 421, *route.statuses} | ({401, 429} if route.needs in ("read", "write") else set())
    if route.needs == "write":
        statuses |= {403, 503}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}_{route.path.strip('/').replace('/', '_').replace('-', '_')}",
        "responses": {"200": ok, **{str(status): _error(status, route, ok) for status in sorted(statuses)}},
    }
    if parameters := _parameters(route.parameters, schemas):
        operation["parameters"] = parameters
    if route.body is not None:
        schema = _schema(route.body, schemas)
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if route.needs == "nothing":
        operation["security"] = []
    return operation


def _error(status: int, route: Route, ok: dict[str, Any]) -> dict[str, Any]:
    if route.needs == "nothing" and status == 503:  # noqa: PLR2004 (health and readiness say the same with it)
        return {**ok, "description": "It is not so."}
    schema = {"$ref": _REFERENCES.format(model="Error")}
    return {"description": _ERRORS[status], "content": {"application/json": {"schema": schema}}}


def _plain(content: str, summary: str, *, needs_token: bool) -> dict[str, Any]:
    schema = {"type": "object" if content == "application/json" else "string"}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "Done.", "content": {content: {"schema": schema}}}},
    }
    return operation if needs_token else {**operation, "security": [{"bearer": []}, {}]}


def _parameters(model: type[BaseModel], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    schema = model.model_json_schema(ref_template=_REFERENCES)
    schemas |= schema.pop("$defs", {})
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": {key: value for key, value in field.items() if key != "title"},
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _schema(answer: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(answer)
    schema = adapter.json_schema(ref_template=_REFERENCES, mode="serialization")
    schemas |= schema.pop("$defs", {})
    if "properties" in schema:  # a model of its own gets a name
        name = answer.__name__.replace("[", "_").replace("]", "")
        schemas[name] = schema
        return {"$ref": _REFERENCES.format(model=name)}
    return schema


def _definitions(model: type[BaseModel]) -> dict[str, Any]:
    _, schema = models_json_schema([(model, "serialization")], ref_template=_REFERENCES)
    return dict(schema["$defs"])
