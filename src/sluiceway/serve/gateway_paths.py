"""What a process with the role `gateway` answers itself: readiness, health, metrics, status.

Invariant: it is ready while it acks, from the brokers or from its outbox.
"""

import json
from collections.abc import Callable

from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import JSON, METRICS_TEXT, TEXT, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Scope
from sluiceway.serve.own_paths import set_worker_figures
from sluiceway.telemetry import Metrics, memory_bytes


class GatewayPaths:
    """Handlers by path, for the gateway's application."""

    def __init__(
        self,
        missing: Callable[[], str],
        figures: Callable[[], dict[str, int]],
        admission: Admission,
        metrics: Metrics,
    ) -> None:
        """`missing` says what keeps it from acking, or nothing."""
        self._missing = missing
        self._figures = figures
        self._admission = admission
        self._metrics = metrics

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {
            "/ready": (self.ready, None),
            "/-/ready": (self.ready, None),
            "/healthz": (self.healthy, None),
            "/-/healthy": (self.healthy, None),
            "/metrics": (self.own_metrics, "admin"),
            "/admin/v1/status": (self.status, "admin"),
        }

    async def ready(self, scope: Scope) -> Answer:
        missing = self._missing()
        if missing:
            return Answer(503, TEXT, f"{missing}\n".encode())
        return Answer(200, TEXT, b"Sluiceway is ready.\n")

    async def healthy(self, scope: Scope) -> Answer:
        return Answer(200, TEXT, b"Sluiceway is healthy.\n")

    async def own_metrics(self, scope: Scope) -> Answer:
        self._collect()
        return Answer(200, METRICS_TEXT, self._metrics.render(None))

    async def status(self, scope: Scope) -> Answer:
        self._collect()
        missing = self._missing()
        told = {
            "role": "gateway",
            "ready": not missing,
            "missing": missing,
            "metrics": self._metrics.unlabelled(),
        }
        return Answer(200, JSON, json.dumps(told).encode())

    def _collect(self) -> None:
        metrics = self._metrics
        metrics.set("sluiceway_write_bytes_in_flight", self._admission.bytes_in_flight)
        metrics.set("sluiceway_write_requests_parked", self._admission.parked_count)
        metrics.set("sluiceway_memory_bytes", memory_bytes(), ("write",))
        set_worker_figures(metrics, self._figures())
