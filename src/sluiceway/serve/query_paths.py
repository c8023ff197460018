"""What a process with the role `query` answers itself: readiness, health, metrics, status.

Invariant: it is ready while its read side answers, whatever becomes of shards: answers that lack
one say so, and `status` names it.
"""

import asyncio
import json
from collections.abc import Sequence

from sluiceway.errors import BackendUnavailable
from sluiceway.gateway.app import JSON, METRICS_TEXT, TEXT, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.receive import Scope
from sluiceway.serve.own_paths import merge_texts
from sluiceway.serve.read_process import ReadProcess
from sluiceway.serve.shard_link import ShardLink
from sluiceway.telemetry import Metrics, memory_bytes

LOOK_S = 2.0


class QueryPaths:
    """Handlers by path, for the gateway's application."""

    def __init__(
        self, read: ReadProcess, proxy: ReadProxy, links: Sequence[ShardLink], metrics: Metrics
    ) -> None:
        self._read = read
        self._proxy = proxy
        self._links = links
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
        if await self._read.answers():
            return Answer(200, TEXT, b"Sluiceway is ready.\n")
        return Answer(503, TEXT, b"the read side is not up\n")

    async def healthy(self, scope: Scope) -> Answer:
        return Answer(200, TEXT, b"Sluiceway is healthy.\n")

    async def own_metrics(self, scope: Scope) -> Answer:
        self._metrics.set("sluiceway_memory_bytes", memory_bytes(), ("write",))
        text = self._metrics.render(None)
        try:
            status, body = await self._proxy.fetch("/metrics")
            if status == 200:
                text = merge_texts(text, body)
        except (BackendUnavailable, TimeoutError):
            pass
        return Answer(200, METRICS_TEXT, text)

    async def status(self, scope: Scope) -> Answer:
        up = await self._read.answers()
        told = {
            "role": "query",
            "ready": up,
            "missing": "" if up else "the read side is not up",
            "shards": {link.name: link.failure or "reached" for link in self._links},
            "metrics": self._metrics.unlabelled(),
        }
        return Answer(200, JSON, json.dumps(told).encode())

    async def watch(self) -> None:
        """Look at the shards until cancelled, so that one that is gone shows before a query."""
        while True:
            await asyncio.gather(*(link.look() for link in self._links))
            for link in self._links:
                up = float(link.failure is None)
                self._metrics.set("sluiceway_shard_up", up, (link.name,))
            await asyncio.sleep(LOOK_S)
