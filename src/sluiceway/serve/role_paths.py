"""What a process with a single role answers itself: readiness, health, metrics, status.

Invariant: each role says what keeps it from its work, and nothing else makes it unready.
"""

import json
from typing import Any

from sluiceway.gateway.app import JSON, METRICS_TEXT, TEXT, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Scope
from sluiceway.telemetry import Metrics, memory_bytes


class RolePaths:
    """Handlers by path, for the gateway's application. A role says what it is by `missing`,
    `collect` and `more`."""

    role = ""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    async def missing(self) -> str:
        """What keeps it from its work; empty where nothing does."""
        raise NotImplementedError

    def collect(self) -> None:
        """Bring the role's gauges up to date."""

    def more(self) -> dict[str, Any]:
        """What `status` tells beside."""
        return {}

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
        missing = await self.missing()
        if missing:
            return Answer(503, TEXT, f"{missing}\n".encode())
        return Answer(200, TEXT, b"Sluiceway is ready.\n")

    async def healthy(self, scope: Scope) -> Answer:
        return Answer(200, TEXT, b"Sluiceway is healthy.\n")

    async def own_metrics(self, scope: Scope) -> Answer:
        return Answer(200, METRICS_TEXT, self._rendered())

    async def status(self, scope: Scope) -> Answer:
        self._rendered()
        missing = await self.missing()
        told = {
            "role": self.role,
            "ready": not missing,
            "missing": missing,
            "metrics": self.metrics.unlabelled(),
            **self.more(),
        }
        return Answer(200, JSON, json.dumps(told).encode())

    def _rendered(self) -> bytes:
        self.metrics.set("sluiceway_memory_bytes", memory_bytes(), ("write",))
        self.collect()
        return self.metrics.render(None)
