"""`/api/v1/cardinality`: what a tenant's active series are made of, and who queries them.

Invariant: a tenant sees its own alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sluiceway.clock import Clock
from sluiceway.governance.explain import explained
from sluiceway.query.api.interface import LabelReader
from sluiceway.query.api.parameters import bad
from sluiceway.query.api.prometheus import Data, Request, distinct, dumps
from sluiceway.query.querylog.entry import Entry
from sluiceway.query.querylog.interest import interest, newest_entries, with_interest
from sluiceway.query.querylog.writer import QueryLog

TOP, TOP_MAX = 10, 1_000


class CardinalityApi:
    """The endpoint. Any thread."""

    def __init__(self, labels: LabelReader, root: Path, log: QueryLog | None, clock: Clock) -> None:
        """`log`, `root`: the query log of this process and its directory; None: there is none."""
        self._labels = labels
        self._root = root
        self._log = log
        self._clock = clock

    def cardinality(self, request: Request) -> Data:
        """What the tenant's active series are made of; of `metric`, which tags multiply it; with
        `since`, what changed from that hour on, with `until` up to another one.

        Raises: TenantFault (400) where `until` is not after `since`, or stands alone."""
        parameters, asker = request.parameters, request.asker
        top = parameters.count("limit", TOP_MAX) if parameters.text("limit") else TOP
        left_s = asker.deadline_s - self._clock.monotonic_s()
        asked: dict[str, Any] = {
            "tenant": asker.tenant,
            "timeout_ms": max(1, int(left_s * 1000)),
            "top": top,
        }
        metric = parameters.text("metric") or None
        if metric is not None:
            asked["metric"] = metric
        if parameters.text("since"):
            asked["since_ms"] = parameters.time_ms("since")
            asked["top"] = TOP_MAX  # so that what was large then is found now
        warnings: list[str] = []
        found = self._labels.cardinality(asked, asker.cancel, warnings)
        until = self._until(request, asked, warnings)
        told = explained(found, top, until)
        if self._log is not None:
            told = self._with_interest(told, asker.tenant, metric, self._log)
        return Data(dumps(told), distinct(warnings))

    def _until(
        self, request: Request, asked: dict[str, Any], warnings: list[str]
    ) -> dict[str, Any] | None:
        """The later one of two past hours; None where the present is meant, or none is recorded."""
        if not request.parameters.text("until"):
            return None
        until_ms = request.parameters.time_ms("until")
        if until_ms <= asked.get("since_ms", until_ms):
            raise bad("until must be a time after since")
        later = {**asked, "since_ms": until_ms}
        return self._labels.cardinality(later, request.asker.cancel, warnings).get("since")

    def _with_interest(
        self, told: dict[str, Any], tenant: str, metric: str | None, log: QueryLog
    ) -> dict[str, Any]:
        log.flush()

        def logged() -> Iterator[Entry]:
            yield from (entry for entry in log.pending() if entry.tenant == tenant)
            yield from newest_entries(self._root, tenant)

        return with_interest(told, interest(logged(), metric), metric)
