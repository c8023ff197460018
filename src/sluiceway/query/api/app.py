"""The read side's application: envelope, errors by type, deadlines, withdrawal.

Invariant: an endpoint runs on the thread that asks, at most `concurrency_max` at once, and is
cancelled when its client goes; what needs no endpoint is answered whoever else runs. Reached only
through the gateway, which has checked the key and set `x-sluiceway-tenant`.
"""

from dataclasses import dataclass, field

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import (
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    SluicewayError,
    TenantFault,
)
from sluiceway.kernels import CancelToken
from sluiceway.query.api.interface import Asker
from sluiceway.query.api.parameters import Parameters, bad
from sluiceway.query.api.prometheus import Data, Endpoint, PrometheusApi, Request, dumps
from sluiceway.query.api.tenant_turns import TenantTurns
from sluiceway.query.api.turns import Turns
from sluiceway.query.limits import QueryConfig
from sluiceway.telemetry import Metrics, memory_bytes
from sluiceway.tenants.interface import TenantDirectory
from sluiceway.tenants.limits import NO_QUOTA, QueryLimits

PREFIX = "/api/v1/"
GET_ONLY = frozenset({"label/*/values", "metadata", "rules", "alerts"})
JSON_TYPE = (b"content-type", b"application/json")
TEXT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
log = structlog.get_logger()


@dataclass(slots=True)
class Call:
    """One request as it came; `headers` in lower case. Its sender withdraws it by going away."""

    method: str = "GET"
    path: str = "/"
    query: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    cancel: CancelToken = field(default_factory=CancelToken)


@dataclass(frozen=True)
class Reply:
    """A whole answer of the read side."""

    status: int
    body: bytes
    content_type: tuple[bytes, bytes] = JSON_TYPE
    retry: bool = False


class QueryApp:
    """The application of the read side."""

    def __init__(
        self,
        api: PrometheusApi,
        limits: QueryConfig,
        clock: Clock,
        metrics: Metrics,
        tenants: TenantDirectory | None = None,
    ) -> None:
        self._api = api
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._tenants = tenants
        self._turns = Turns(limits.concurrency_max, limits.waiting_max)
        self._tenant_turns = TenantTurns(limits.waiting_max)

    def answer(self, call: Call) -> Reply:
        """The whole answer to a request; any thread, blocks. Raises nothing that a client can
        cause."""
        started_s = self._clock.monotonic_s()
        path = call.path
        endpoint_name, variable = route(path.removeprefix(PREFIX))
        endpoint = self._api.endpoints.get(endpoint_name)
        if path == "/metrics":
            return Reply(200, self._render_metrics(), TEXT_TYPE)
        if path == "/ready":
            return Reply(200, b'{"status":"success"}')
        if endpoint is None or not path.startswith(PREFIX):
            return failure(404, "not_found", "nothing lives at this path")
        reply = self._run(call, endpoint_name, endpoint, variable)
        seconds = self._clock.monotonic_s() - started_s
        self._metrics.observe("sluiceway_query_seconds", seconds, (endpoint_name,))
        self._metrics.count("sluiceway_query_requests_total", (endpoint_name, str(reply.status)))
        return reply

    def withdraw(self, call: Call) -> None:
        """Nobody waits for this answer any more; any thread."""
        call.cancel.cancel()
        self._tenant_turns.wake_cancelled()
        self._turns.wake_cancelled()

    def _run(self, call: Call, endpoint_name: str, endpoint: Endpoint, variable: str) -> Reply:
        """Read the request, wait for a turn, work, put the answer into words."""
        try:
            if call.method == "POST" and endpoint_name in GET_ONLY:
                return failure(405, "bad_data", "only GET is taken here")
            parameters = Parameters(call.query, form_of(call))
            tenant = call.headers.get(b"x-sluiceway-tenant", b"default").decode()
            quota = NO_QUOTA if self._tenants is None else self._tenants.limits(tenant).query
            timeout_s = self._timeout_s(parameters, quota)
            deadline_s = self._clock.monotonic_s() + timeout_s
            sees_all = b"x-sluiceway-actor" in call.headers
            asker = Asker(tenant, deadline_s, call.cancel, quota, sees_all)
            request = Request(variable, parameters, asker)
            with (
                self._tenant_turns.turn(tenant, quota.concurrency_max, timeout_s, call.cancel),
                self._turns.turn(deadline_s - self._clock.monotonic_s(), call.cancel),
            ):
                return success(endpoint(request))
        except SluicewayError as error:
            return reply_of(error)
        except MemoryError:
            return failure(503, "unavailable", "out of memory", retry=True)
        except Exception:
            log.exception("query_failed")
            return failure(500, "internal", "an internal error; the server's log has it")

    def _timeout_s(self, parameters: Parameters, quota: QueryLimits) -> float:
        longest_s = self._limits.timeout_s_max
        if quota.timeout_ms_max is not None:
            longest_s = min(longest_s, quota.timeout_ms_max / 1000)
        asked_s = parameters.duration_ms("timeout", int(longest_s * 1000)) / 1000
        if asked_s <= 0:
            raise bad('invalid parameter "timeout": must be positive')
        return min(asked_s, longest_s)

    def _render_metrics(self) -> bytes:
        self._metrics.set("sluiceway_query_running", self._turns.running_count)
        waiting = self._turns.waiting_count + self._tenant_turns.waiting_count
        self._metrics.set("sluiceway_query_waiting", waiting)
        self._metrics.set("sluiceway_memory_bytes", memory_bytes(), ("read",))
        return self._metrics.render()


def route(path: str) -> tuple[str, str]:
    """(the endpoint's name, the variable part of the path)."""
    if path.startswith("label/") and path.endswith("/values"):
        return "label/*/values", path[len("label/") : -len("/values")]
    return path, ""


def success(data: Data) -> Reply:
    parts = [b'{"status":"success","data":', data.json]
    if data.warnings:
        parts += [b',"warnings":', dumps(data.warnings)]
    if data.infos:
        parts += [b',"infos":', dumps(data.infos)]
    parts.append(b"}")
    return Reply(200, b"".join(parts))


def failure(status: int, kind: str, message: str, retry: bool = False) -> Reply:
    body = dumps({"status": "error", "errorType": kind, "error": message})
    return Reply(status, body, retry=retry)


def reply_of(error: SluicewayError) -> Reply:
    """Who must act, in the error types of Prometheus' API."""
    match error:
        case TenantFault(status=422):
            # Prometheus' own errors keep its words; limits of ours are named.
            named = "" if error.id == "sluiceway-query-execution" else f" ({error.id})"
            return failure(422, "execution", error.message + named)
        case TenantFault():
            kind = "not_found" if error.status == 404 else "bad_data"
            return failure(error.status, kind, error.message)
        case DeadlineExceeded():
            return failure(503, "timeout", str(error))
        case Cancelled():
            return failure(499, "canceled", str(error))
        case Overloaded() | BackendUnavailable():
            return failure(503, "unavailable", str(error), retry=True)
        case _:
            log.error("query_failed", error=str(error))
            return failure(500, "internal", str(error))


def form_of(call: Call) -> bytes:
    """The request's body, which the gateway has bounded; empty unless it is a form."""
    content_type = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return call.body if content_type == b"application/x-www-form-urlencoded" else b""
