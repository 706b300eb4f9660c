"""The OpenAPI document: valid, and complete."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from proxyproto_rs.mqtt.http.application import ROUTES
from proxyproto_rs.mqtt.http.openapi import document

from .asking import READ_TOKEN, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_it_is_valid() -> None:
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="openapi-spec-validator is not installed"
    )
    validator.validate(document(ROUTES))


async def test_it_is_served() -> None:
    async with serving() as (_, api):
        await api.fails(401, "GET", "/api/openapi.json", token=None)
        assert await api.get("/api/openapi.json", token=READ_TOKEN) == document(ROUTES)


def test_every_reference_leads_somewhere() -> None:
    described = document(ROUTES)
    referred = set(re.findall(r"#/components/schemas/(\w+)", str(described)))
    assert referred
    assert referred <= described["components"]["schemas"].keys()


def test_every_path_of_the_application_is_described() -> None:
    described = document(ROUTES)["paths"]
    for route in ROUTES:
        assert route.method.lower() in described[route.path], route
    assert {"/metrics", "/api/events", "/api/openapi.json"} <= described.keys()


def names() -> Iterator[str]:
    for path, operations in document(ROUTES)["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                yield f"{path}:{parameter['name']}"


# What TBMQ's own scripts send (github.com/thingsboard/tbmq, the controllers of 2026).
TBMQ = [
    *(f"/api/v2/client-session:{name}" for name in (
        "pageSize", "page", "textSearch", "sortProperty", "sortOrder", "startTime", "endTime", "connectedStatusList",
        "clientTypeList", "cleanStartList", "nodeIdList", "subscriptions", "subscriptionOperation", "clientIpAddress",
    )),
    "/api/client-session:clientId",
    *(f"/api/client-session/{verb}:{name}" for verb in ("disconnect", "remove") for name in ("clientId", "sessionId")),
    *(f"/api/unauthorized/client/v2:{name}" for name in (
        "pageSize", "page", "textSearch", "sortProperty", "sortOrder", "startTime", "endTime", "clientId", "ipAddress",
        "username", "reason", "passwordProvidedList", "tlsUsedList",
    )),
    *(f"/api/blockedClient/v2:{name}" for name in (
        "pageSize", "page", "textSearch", "sortProperty", "sortOrder", "startTime", "endTime", "typeList", "value",
        "regexMatchTargetList",
    )),
    *(f"/api/blockedClient:{name}" for name in ("type", "value", "regexMatchTarget")),
]  # fmt: skip


def test_tbmqs_parameters_are_known() -> None:
    assert not set(TBMQ) - set(names())
