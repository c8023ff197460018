"""The public address: which path goes where.

Invariant: write paths never wait for the read side; everything that is not ours to answer is
handed to the read side as bytes, with the tenant that the key stands for.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from sluiceway.errors import BackendUnavailable, Overloaded, SluicewayError, TenantFault
from sluiceway.gateway.doors.interface import CLOSE, Answer, Door
from sluiceway.gateway.doors.otlp_http import OtlpHttp
from sluiceway.gateway.doors.remote_write import RemoteWrite
from sluiceway.gateway.held import Crowd
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.receive import Receive, Receiver, Scope, Send, respond
from sluiceway.telemetry import Metrics

DOORS: dict[str, Door] = {
    "/api/v1/write": RemoteWrite(),
    "/v1/metrics": OtlpHttp(),
    "/api/v1/otlp/v1/metrics": OtlpHttp(),
}


class Nobody:
    """The crowd of a process that takes no writes."""

    parked_count = 0
    places_free = 0

    def jitter(self) -> float:
        return 0.0


NOBODY = Nobody()
DOORS_BY_TARGET = {path.encode(): door for path, door in DOORS.items()}
PRINCIPAL = "sluiceway.principal"
"""In the scope that a path of our own is handed: who asks, where a key's scope is needed."""
PART = b"x-sluiceway-part"
"""In the head of every answer of a process that has one partition of several: which one."""
RECEIVE = "sluiceway.receive"
"""Likewise: the body, for those that take one."""
READ_PREFIXES = ("/api/v1/", "/loki/api/v1/")
READ_METHODS = ("GET", "POST")
ADMIN_PREFIX = "/admin/v1/"
ADMIN_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
METRICS_TEXT = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
JSON = ((b"content-type", b"application/json"),)
INDEX = b"Sluiceway. Write: POST /api/v1/write, /v1/metrics. Ask: /api/v1/query. See /metrics.\n"

Own = Callable[[Scope], Awaitable[Answer]]


class GatewayApp:
    """The ASGI application of the write side. `own` are the paths that wiring answers itself:
    readiness, metrics, admin; each with the scope that its key needs, or None."""

    def __init__(
        self,
        receiver: Receiver | None,
        proxy: ReadProxy | None,
        keyring: Keyring,
        own: dict[str, tuple[Own, KeyScope | None]],
        metrics: Metrics,
        part: str = "",
    ) -> None:
        """`receiver` None: this process takes no writes; `proxy` None: it answers no queries.
        `part`: what answers are of, where that is not all."""
        self._receiver = receiver
        self.crowd: Crowd = NOBODY if receiver is None else receiver.admission
        self._proxy = proxy
        self._keyring = keyring
        self._own = own
        self._metrics = metrics
        self._part = part

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        door = DOORS.get(scope["path"])
        if door is not None and self._receiver is not None:
            return self._receiver.take(door, scope, receive, send)
        return self._answer(scope, receive, of_part(self._part, send) if self._part else send)

    def refuse_at_once(
        self, target: bytes, headers: list[tuple[bytes, bytes]], round_s: float
    ) -> Answer | None:
        """The answer to a write that finds no room, by its head; None: it goes the usual way."""
        door = DOORS_BY_TARGET.get(target)
        if door is None or self._receiver is None:
            return None
        return self._receiver.refuse_at_once(door, dict(headers), round_s)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        try:
            own = self._own.get(path)
            if own is not None:
                handler, key_scope = own
                if key_scope is not None:
                    scope[PRINCIPAL] = self._keyring.authorize(dict(scope["headers"]), key_scope)
                    scope[RECEIVE] = receive
                await respond(await handler(scope), send)
            elif path.startswith(READ_PREFIXES) and path not in DOORS:
                await self._hand_on(scope, receive, send, "read", READ_METHODS)
            elif path.startswith(ADMIN_PREFIX):
                await self._hand_on(scope, receive, send, "admin", ADMIN_METHODS)
            elif path in DOORS:
                words = "this process has a role that takes no writes"
                raise TenantFault(404, "sluiceway-role", words)
            elif path == "/":
                await respond(Answer(200, TEXT, INDEX), send)
            else:
                raise TenantFault(404, "sluiceway-path", "nothing lives at this path")
        except TenantFault as fault:
            await respond(_failure(fault.status, fault.id, fault.message), send)
        except Overloaded as error:
            await respond(_failure(503, "sluiceway-overloaded", error.message, True), send)
        except BackendUnavailable as error:
            await respond(_failure(503, "sluiceway-backend", str(error), True), send)
        except TimeoutError:
            slow = _failure(408, "sluiceway-body-deadline", "the body did not come in time")
            await respond(Answer(slow.status, slow.headers + CLOSE, slow.body), send)
        except SluicewayError as error:
            await respond(_failure(500, "sluiceway-internal", str(error)), send)

    async def _hand_on(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        key_scope: KeyScope,
        methods: tuple[str, ...],
    ) -> None:
        status = "failed"
        try:
            if self._proxy is None:
                words = "not of this process: its role has no series. Ask the role query"
                raise TenantFault(404, "sluiceway-role", words)
            if scope["method"] not in methods:
                words = f"only {', '.join(methods)} are taken here"
                raise TenantFault(405, "sluiceway-method", words)
            principal = self._keyring.authorize(dict(scope["headers"]), key_scope)
            # The key's name is for the query log; that it is an admin's, for what only they see.
            more = b"x-sluiceway-key: %b\r\n" % principal.name.encode()
            if "admin" in principal.scopes:
                more += b"x-sluiceway-actor: %b\r\n" % principal.name.encode()
            hand_on = self._proxy.hand_on
            status = str(await hand_on(scope, receive, send, principal.tenant, more))
        except ConnectionResetError:
            # The answer has begun: ending it early is all that can be said. The server closes.
            status = "broken off"
        finally:
            self._metrics.count("sluiceway_read_requests_total", (status,))


def of_part(part: str, send: Send) -> Send:
    """Names the part in the head of what is sent."""

    async def named(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": (*message["headers"], (PART, part.encode()))}
        await send(message)

    return named


ERROR_TYPES = {400: "bad_data", 404: "not_found", 500: "internal", 503: "unavailable"}


def _failure(status: int, id: str, message: str, retry: bool = False) -> Answer:
    """An error in the envelope of Prometheus' API, which every reader of ours understands."""
    told: dict[str, Any] = {
        "status": "error",
        "errorType": ERROR_TYPES.get(status, "bad_data"),
        "error": f"{message} ({id})",
    }
    headers: tuple[tuple[bytes, bytes], ...] = JSON
    if retry:
        headers = (*headers, (b"retry-after", b"1"))
    if status == 401:
        challenge = b'Bearer realm="sluiceway", Basic realm="sluiceway"'
        headers = (*headers, (b"www-authenticate", challenge))
    return Answer(status, headers, json.dumps(told).encode())
