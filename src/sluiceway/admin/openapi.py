"""The OpenAPI document of the admin API, made of its routes and types.

Invariant: nothing is described by hand that the code checks by type.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from sluiceway import __version__
from sluiceway.admin.routes import PREFIX, Route

VARIABLE = re.compile(r"\{(\w+)\}")


class Failure(msgspec.Struct, frozen=True):
    """Why a request was refused; `id` is stable."""

    status: str
    errorType: str  # noqa: N815  (as Prometheus' API words its errors)
    id: str
    error: str


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """OpenAPI 3.1."""
    named = [route.answer for route in routes] + [route.body for route in routes if route.body]
    schemas, components = msgspec.json.schema_components(
        [*named, Failure], ref_template="#/components/schemas/{name}"
    )
    answers, bodies = list(schemas[: len(routes)]), iter(schemas[len(routes) : -1])
    failure = {"description": "Refused", "content": _json(schemas[-1])}
    paths: dict[str, Any] = {}
    for route, answer in zip(routes, answers, strict=True):
        told = {
            "type": "object",
            "required": ["status", "data"],
            "properties": {"status": {"const": "success"}, "data": answer},
        }
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": f"{route.handler.__name__}",
            "parameters": _parameters(route),
            "responses": {
                str(route.status): {"description": "Done", "content": _json(told)},
                "4XX": failure,
                "503": failure,
            },
        }
        if route.body is not None:
            operation["requestBody"] = {"required": True, "content": _json(next(bodies))}
        if route.text:
            document = {"schema": {"type": "string"}}
            content = {"application/yaml": document, "application/json": {"schema": {}}}
            operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = operation
    schemes = {
        "key": {"type": "http", "scheme": "bearer"},
        "password": {"type": "http", "scheme": "basic"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sluiceway admin", "version": __version__},
        "security": [{"key": []}, {"password": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": schemes},
    }


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    text = {"type": "string"}
    return [
        {"name": name, "in": "path", "required": True, "schema": text}
        for name in VARIABLE.findall(route.path)
    ] + [{"name": name, "in": "query", "schema": text} for name in route.query]
