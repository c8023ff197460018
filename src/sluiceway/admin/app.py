"""The admin API's application: routing, envelope, errors with stable ids.

Invariant: reached only through the gateway, which has checked that the key's scope is `admin` and
says who asks. A client's fault is a 4xx with an id; nothing that a client sends is a 5xx.
"""

from dataclasses import dataclass

import msgspec
import structlog

from sluiceway.admin.openapi import document
from sluiceway.admin.policies import PolicyRoutes
from sluiceway.admin.routes import Asked, Route, Routes, parameters
from sluiceway.admin.tenants import TenantRoutes
from sluiceway.admin.whatif import WhatIfRoutes
from sluiceway.errors import BackendUnavailable, TenantFault

ERROR_TYPES = {404: "not_found", 422: "execution", 503: "unavailable"}
ANONYMOUS_ACTOR = "anonymous"
log = structlog.get_logger()


@dataclass(frozen=True)
class AdminAnswer:
    """A whole answer, in JSON."""

    status: int
    body: bytes


class AdminApp:
    """Answers what is under /admin/v1/ and is not the write side's own. Any thread; blocks."""

    def __init__(
        self, tenants: TenantRoutes, policies: PolicyRoutes, whatif: WhatIfRoutes | None = None
    ) -> None:
        told = Route("GET", "/openapi.json", self._openapi, "This document", dict)
        judged = [] if whatif is None else whatif.routes()
        self._routes = Routes([*tenants.routes(), *judged, *policies.routes(), told])

    def answer(self, method: str, path: str, query: bytes, body: bytes, actor: str) -> AdminAnswer:
        try:
            route, variables = self._routes.find(method, path)
            asked = Asked(actor, variables, parameters(query, route.query), _checked(route, body))
            told = route.handler(asked)
            if route.handler == self._openapi:  # a document of its own, without our envelope
                return AdminAnswer(200, msgspec.json.encode(told))
            done = {"status": "success", "data": told}
            return AdminAnswer(route.status, msgspec.json.encode(done))
        except TenantFault as fault:
            return _failure(fault.status, fault.id, fault.message)
        except BackendUnavailable as error:
            return _failure(503, "sluiceway-backend", str(error))
        except Exception:
            log.exception("admin_failed")
            return _failure(500, "sluiceway-internal", "the server's log has it")

    def _openapi(self, asked: Asked) -> object:
        return document(self._routes.all)


def _checked(route: Route, body: bytes) -> object:
    """The body as the route's type. Raises: TenantFault 400."""
    if route.text:
        return _text(body)
    if route.body is None:
        return None
    try:
        return msgspec.json.decode(body or b"{}", type=route.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TenantFault(400, "sluiceway-admin-body", f"the body: {error}") from None


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise TenantFault(400, "sluiceway-admin-body", f"the body: {error}") from None


def _failure(status: int, id: str, message: str) -> AdminAnswer:
    kind = ERROR_TYPES.get(status, "internal" if status >= 500 else "bad_data")
    told = {"status": "error", "errorType": kind, "id": id, "error": f"{message} ({id})"}
    return AdminAnswer(status, msgspec.json.encode(told))
