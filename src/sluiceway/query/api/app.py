"""The read side's application: envelope, errors by type, deadlines, withdrawal.

Invariant: an endpoint runs on the thread that asks, at most `concurrency_max` at once, and is
cancelled when its client goes; what needs no endpoint is answered whoever else runs. Reached only
through the gateway, which has checked the key and set `x-sluiceway-tenant`.
"""

from collections.abc import Sequence
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
from sluiceway.query.api.turns import FairTurns
from sluiceway.query.api.witness import Witness
from sluiceway.query.limits import QueryConfig
from sluiceway.query.querylog.writer import QueryLog
from sluiceway.query.spent import Asked
from sluiceway.telemetry import Metrics, memory_bytes
from sluiceway.tenants.interface import TenantDirectory
from sluiceway.tenants.limits import NO_QUOTA, QueryLimits

PREFIX = "/api/v1/"
GET_ONLY = frozenset({"label/*/values", "metadata", "query_log", "cost", "export"})
JSON_TYPE = (b"content-type", b"application/json")
TEXT_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
OWN_LIMITS = {
    "sluiceway-query-series-limit": "series_max",
    "sluiceway-query-points-limit": "points_max",
    "sluiceway-query-cost-limit": "cost_max",
    "sluiceway-query-bytes-limit": "memory_bytes_max",
    "sluiceway-query-samples-limit": "memory_bytes_max",
    "sluiceway-query-answer-limit": "result_bytes_max",
}
"""The tenant's limit that lowers the one of this id."""
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
    reason: str = ""
    """Of an error: its stable id, or its type."""


class QueryApp:
    """The application of the read side."""

    def __init__(
        self,
        api: PrometheusApi,
        limits: QueryConfig,
        clock: Clock,
        metrics: Metrics,
        tenants: TenantDirectory | None = None,
        query_log: QueryLog | None = None,
        part: str = "",
    ) -> None:
        """`part`: what answers are of, where other processes have the rest of the series."""
        self._api = api
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._tenants = tenants
        self._turns = FairTurns(limits, clock)
        self._witness = Witness(metrics, query_log)
        self._part = [f"{part} alone: the role query answers over all"] if part else []

    def answer(self, call: Call) -> Reply:
        """The whole answer to a request; any thread, blocks. Raises nothing that a client can
        cause."""
        started_s = self._clock.monotonic_s()
        path = call.path
        endpoint_name, variable = route(path.removeprefix(PREFIX))
        endpoint = self._api.endpoints.get(endpoint_name)
        if path == "/metrics":
            return Reply(200, self._render_metrics(Parameters(call.query)), TEXT_TYPE)
        if path == "/ready":
            return Reply(200, b'{"status":"success"}')
        if endpoint is None or not path.startswith(PREFIX):
            return failure(404, "not_found", "nothing lives at this path")
        tenant = call.headers.get(b"x-sluiceway-tenant", b"default").decode()
        key = call.headers.get(b"x-sluiceway-key", b"").decode("utf-8", "replace")
        asked = Asked(endpoint_name, tenant, key)
        reply = self._run(call, asked, endpoint, variable)
        seconds = self._clock.monotonic_s() - started_s
        self._witness.tell(asked, reply.status, reply.reason, seconds, len(reply.body))
        return reply

    def withdraw(self, call: Call) -> None:
        """Nobody waits for this answer any more; any thread."""
        call.cancel.cancel()
        self._turns.wake_cancelled()

    def _run(self, call: Call, asked: Asked, endpoint: Endpoint, variable: str) -> Reply:
        """Read the request, wait for a turn, work, put the answer into words."""
        tenant = asked.tenant
        quota = NO_QUOTA if self._tenants is None else self._tenants.limits(tenant).query
        try:
            if call.method == "POST" and asked.endpoint in GET_ONLY:
                return failure(405, "bad_data", "only GET is taken here")
            parameters = Parameters(call.query, form_of(call))
            timeout_s = self._timeout_s(parameters, quota)
            deadline_s = self._clock.monotonic_s() + timeout_s
            sees_all = b"x-sluiceway-actor" in call.headers
            asker = Asker(tenant, deadline_s, call.cancel, quota, sees_all)
            request = Request(variable, parameters, asker, asked)
            with self._turns.turn(tenant, quota.concurrency_max, timeout_s, call.cancel):
                return success(endpoint(request), self._part)
        except SluicewayError as error:
            return reply_of(error, quota)
        except MemoryError:
            words = "out of memory: this query and those beside it need more than the read side has"
            return failure(503, "unavailable", words, retry=True, reason="memory")
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

    def _render_metrics(self, parameters: Parameters) -> bytes:
        """Of what is told by tenant only the one's that `tenant` names."""
        self._metrics.set("sluiceway_query_running", self._turns.running_count)
        self._metrics.set("sluiceway_query_waiting", self._turns.waiting_count)
        self._metrics.set("sluiceway_memory_bytes", memory_bytes(), ("read",))
        return self._metrics.render(parameters.text("tenant") or None)


def route(path: str) -> tuple[str, str]:
    """(the endpoint's name, the variable part of the path)."""
    if path.startswith("label/") and path.endswith("/values"):
        return "label/*/values", path[len("label/") : -len("/values")]
    return path, ""


def success(data: Data, part: Sequence[str] = ()) -> Reply:
    if data.document is not None:
        content_type, body = data.document
        return Reply(200, body, (b"content-type", content_type))
    parts = [b'{"status":"success","data":', data.json]
    warnings = [*part, *data.warnings]
    if warnings:
        parts += [b',"warnings":', dumps(warnings)]
    if data.infos:
        parts += [b',"infos":', dumps(data.infos)]
    parts.append(b"}")
    return Reply(200, b"".join(parts))


def failure(status: int, kind: str, message: str, retry: bool = False, reason: str = "") -> Reply:
    body = dumps({"status": "error", "errorType": kind, "error": message})
    return Reply(status, body, retry=retry, reason=reason or kind)


def reply_of(error: SluicewayError, quota: QueryLimits = NO_QUOTA) -> Reply:
    """Who must act, in the error types of Prometheus' API."""
    match error:
        case TenantFault(status=422):
            # Prometheus' own errors keep its words; limits of ours are named.
            named = "" if error.id == "sluiceway-query-execution" else f" ({error.id})"
            words = error.message + own_limit(OWN_LIMITS.get(error.id, ""), quota) + named
            return failure(422, "execution", words, reason=error.id)
        case TenantFault():
            kind = "not_found" if error.status == 404 else "bad_data"
            # A 403 is ours alone: it is named. The others keep the words of Prometheus.
            named = f" ({error.id})" if error.status == 403 else ""
            return failure(error.status, kind, error.message + named, reason=error.id)
        case DeadlineExceeded():
            return failure(503, "timeout", str(error) + own_limit("timeout_ms_max", quota))
        case Cancelled():
            return failure(499, "canceled", str(error))
        case Overloaded():
            return failure(503, "unavailable", str(error), retry=True, reason="overloaded")
        case BackendUnavailable():
            return failure(503, "unavailable", str(error), retry=True)
        case _:
            log.error("query_failed", error=str(error))
            return failure(500, "internal", str(error))


def own_limit(name: str, quota: QueryLimits) -> str:
    """The tenant's own limit, where it has one: it may be what was passed, and can be raised."""
    value = getattr(quota, name, None)
    return "" if value is None else f"; this tenant's query.{name} is {value}"


def form_of(call: Call) -> bytes:
    """The request's body, which the gateway has bounded; empty unless it is a form."""
    content_type = call.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return call.body if content_type == b"application/x-www-form-urlencoded" else b""
