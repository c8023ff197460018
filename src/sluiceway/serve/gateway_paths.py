"""What a process with the role `gateway` says of itself.

Invariant: it is ready while it acks, from the brokers or from its outbox.
"""

from collections.abc import Callable
from typing import Any

from sluiceway.gateway.admission import Admission
from sluiceway.serve.own_paths import set_worker_figures
from sluiceway.serve.role_paths import RolePaths
from sluiceway.telemetry import Metrics


class GatewayPaths(RolePaths):
    """See RolePaths."""

    role = "gateway"

    def __init__(
        self,
        missing: Callable[[], str],
        failure: Callable[[], str],
        figures: Callable[[], dict[str, int]],
        admission: Admission,
        metrics: Metrics,
    ) -> None:
        """`missing` says what keeps it from acking, or nothing; `failure` why the topic was not
        found yet: until it is, what is acked is in the outbox alone."""
        super().__init__(metrics)
        self._missing = missing
        self._failure = failure
        self._figures = figures
        self._admission = admission

    async def missing(self) -> str:
        return self._missing()

    def more(self) -> dict[str, Any]:
        return {"topic_not_found": self._failure()}

    def collect(self) -> None:
        self.metrics.set("sluiceway_write_bytes_in_flight", self._admission.bytes_in_flight)
        self.metrics.set("sluiceway_write_requests_parked", self._admission.parked_count)
        set_worker_figures(self.metrics, self._figures())
