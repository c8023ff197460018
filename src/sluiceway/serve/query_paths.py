"""What a process with the role `query` says of itself.

Invariant: it is ready while its read side answers, whatever becomes of shards: answers that lack
one say so, and `status` names it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from sluiceway.errors import BackendUnavailable, TenantFault
from sluiceway.gateway.app import Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.receive import Scope
from sluiceway.serve.own_paths import merge_texts
from sluiceway.serve.read_process import ReadProcess
from sluiceway.serve.role_paths import RolePaths
from sluiceway.serve.shard_link import ShardLink
from sluiceway.telemetry import Metrics

LOOK_S = 2.0
SHARDS_OWN = (
    "/api/v1/alerts",
    "/api/v1/rules",
    "/api/v1/export",
    "/api/v1/deadletters",
    "/api/v1/deadletters/count",
    "/api/v1/deadletters/bodies",
    "/api/v1/deadletters/replay",
    "/admin/v1/budgets",
    "/admin/v1/deletions",
    "/admin/v1/flush",
    "/admin/v1/import",
    "/admin/v1/policies/whatif",
    "/admin/v1/rollup",
)
"""What a process with a shard answers for its own shard, and nobody for all of them."""


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

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {**super().table(), **dict.fromkeys(SHARDS_OWN, (self.ask_shards, "read"))}

    async def ask_shards(self, scope: Scope) -> Answer:
        """Never a part as if it were all."""
        words = f"{scope['path']} is each shard's own: ask every shard (docs/scale-out.md)"
        raise TenantFault(404, "sluiceway-role", words)

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
