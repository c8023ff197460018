"""What is told of each request of the read side: metrics, by endpoint and by tenant; queries to
the query log.

Invariant: takes microseconds and raises nothing; the number of labels is bounded.
"""

from sluiceway.query.querylog.writer import QueryLog
from sluiceway.query.spent import Asked
from sluiceway.telemetry import Metrics, TenantLabels

LOGGED = frozenset({"query", "query_range"})
REFUSALS = frozenset({422, 503})


class Witness:
    """Any thread."""

    def __init__(self, metrics: Metrics, log: QueryLog | None = None) -> None:
        self._metrics = metrics
        self._log = log
        self._tenants = TenantLabels()

    def tell(
        self, asked: Asked, status: int, reason: str, seconds: float, answer_bytes: int
    ) -> None:
        """One request was answered. `reason` is an id or a type of ours, never a client's words."""
        metrics, endpoint = self._metrics, asked.endpoint
        tenant = self._tenants.of(asked.tenant)
        metrics.observe("sluiceway_query_seconds", seconds, (endpoint,))
        metrics.count_all(
            (
                ("sluiceway_query_requests_total", (endpoint, str(status)), 1),
                ("sluiceway_tenant_queries_total", (tenant, str(status)), 1),
                ("sluiceway_tenant_query_seconds_total", (tenant,), seconds),
                ("sluiceway_tenant_query_points_total", (tenant,), asked.spent.points_scanned),
            )
        )
        if status in REFUSALS:
            metrics.count("sluiceway_tenant_queries_refused_total", (tenant, reason))
        if self._log is not None and endpoint in LOGGED:
            self._log.note(asked, status, reason, seconds, answer_bytes)
