"""What a process with the role `query` says of itself.

Invariant: it is ready while its read side answers, whatever becomes of shards: answers that lack
one say so, and `status` names it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from sluiceway.errors import BackendUnavailable
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.receive import Scope
from sluiceway.serve.own_paths import merge_texts
from sluiceway.serve.read_process import ReadProcess
from sluiceway.serve.role_paths import RolePaths
from sluiceway.serve.shard_link import ShardLink
from sluiceway.telemetry import Metrics

LOOK_S = 2.0


class QueryPaths(RolePaths):
    """See RolePaths."""

    role = "query"

    def __init__(
        self, read: ReadProcess, proxy: ReadProxy, links: Sequence[ShardLink], metrics: Metrics
    ) -> None:
        super().__init__(metrics)
        self._read = read
        self._proxy = proxy
        self._links = links

    async def missing(self) -> str:
        return "" if await self._read.answers() else "the read side is not up"

    def more(self) -> dict[str, Any]:
        return {"shards": {link.name: link.failure or "reached" for link in self._links}}

    async def own_metrics(self, scope: Scope) -> Answer:
        """With the read side's, where it answers."""
        own = await super().own_metrics(scope)
        try:
            status, body = await self._proxy.fetch("/metrics")
        except (BackendUnavailable, TimeoutError):
            return own
        return own if status != 200 else Answer(200, own.headers, merge_texts(own.body, body))

    async def watch(self) -> None:
        """Look at the shards until cancelled, so that one that is gone shows before a query."""
        while True:
            await asyncio.gather(*(link.look() for link in self._links))
            for link in self._links:
                up = float(link.failure is None)
                self.metrics.set("sluiceway_shard_up", up, (link.name,))
            await asyncio.sleep(LOOK_S)
