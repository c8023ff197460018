"""Several shards as one: each is asked at once, what they say is put together.

Invariant: an answer that lacks a shard says so in its warnings, by name; what all shards together
may select, read and cost is what one may. A question that every shard fails is failed.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from sluiceway.errors import BackendUnavailable, DeadlineExceeded, TenantFault
from sluiceway.kernels import CancelToken, LabelTable
from sluiceway.query import merged
from sluiceway.query.api.interface import Ask
from sluiceway.query.interface import PointSeries, StepColumns
from sluiceway.query.pinned import HotReader
from sluiceway.query.stitched import distinct_series

T = TypeVar("T")
GRACE_S = 0.5
"""A shard says itself that the deadline has passed; one that does not is not waited for."""
LIMITED = {
    "series_max": ("series_selected", "series"),
    "cost_max": ("cost", "cost"),
    "points_max": ("points_scanned", "points"),
}
"""A plan's limits, the figure that each is of, and the word in its error's id."""


class ShardEnd(HotReader, Protocol):
    """A shard's end of the protocol: `kernels.ShardClient`."""

    def usage_tags(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A shard by the name that warnings call it."""

    name: str
    reader: ShardEnd


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What the shards that could be reached said, in the order of the shards."""

    parts: list[T]
    warnings: list[str]


class ShardedReader:
    """A HotReader over the shards of now. Thread-safe.

    `members` is asked once a question; `disjoint_from_ms` says since when every series has lived
    in one shard: what reads older points is aggregated here, series by series, and not there.
    """

    def __init__(
        self,
        members: Callable[[], Sequence[Member]],
        threads_max: int,
        disjoint_from_ms: Callable[[], int] = lambda: -(1 << 62),
    ) -> None:
        self._members = members
        self._disjoint_from_ms = disjoint_from_ms
        self._pool = ThreadPoolExecutor(threads_max, thread_name_prefix="shards")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- a question to all ----------------------------------------------------------------------

    def ask(self, question: Callable[[ShardEnd], T], request: Ask) -> Answers[T]:
        """Ask every shard at once; `request` says in `timeout_ms` how long to wait. Raises:
        BackendUnavailable (none answered), DeadlineExceeded, and what any of them says of the
        question itself."""
        members = self._members()
        if not members:
            raise BackendUnavailable("no shard is known yet")
        later = [self._pool.submit(question, member.reader) for member in members]
        timeout_ms = request.get("timeout_ms")
        late = wait(later, None if timeout_ms is None else timeout_ms / 1000 + GRACE_S).not_done
        if late:
            _give_up(later)
            names = [m.name for m, asked in zip(members, later, strict=True) if asked in late]
            raise DeadlineExceeded(f"late: shard {', '.join(names)}")
        parts: list[T] = []
        warnings: list[str] = []
        fault: Exception | None = None
        for member, asked in zip(members, later, strict=True):
            try:
                parts.append(asked.result())
            except BackendUnavailable as error:
                of = f"shard {member.name}, one of {len(members)}"
                warnings.append(f"partial: {of}, does not answer: {error}")
            except Exception as error:
                fault = fault or error
        if fault is not None:
            raise fault
        if not parts:
            raise BackendUnavailable("; ".join(warnings))
        return Answers(parts, warnings)

    # --- points and steps -----------------------------------------------------------------------

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> StepColumns:
        """As ShardReader's."""
        asked = plan["aggregate"]
        fused = asked is None or (asked["op"] in merged.OF_PARTS and self._disjoint(plan))
        wanted = plan if fused else {**plan, "aggregate": None}
        told = self.ask(lambda shard: shard.evaluate(wanted, cancel), plan)
        step_ms = plan["step_ms"]
        steps = (plan["end_ms"] - plan["start_ms"]) // step_ms + 1 if step_ms else 1
        rows = merged.rows_together(told.parts, steps)
        rows.warnings += told.warnings
        within_limits(plan.get("limits", {}), rows.stats)
        if asked is None:
            return once(rows)
        if fused:
            return merged.groups_together(rows, asked["op"])
        return merged.aggregated(once(rows), asked)

    def points(self, request: Ask, cancel: CancelToken | None = None) -> PointSeries:
        """As ShardReader's."""
        told = self.ask(lambda shard: shard.points(request, cancel), request)
        answer = merged.points_together(told.parts)
        answer.warnings += told.warnings
        within_limits(request.get("limits", {}), answer.stats)
        return points_once(answer)

    def _disjoint(self, plan: Ask) -> bool:
        reach_ms = plan["lookback_ms"] if plan["range_ms"] is None else plan["range_ms"]
        at_ms = plan["start_ms"] if plan["at_ms"] is None else plan["at_ms"]
        oldest_ms = at_ms - plan["offset_ms"] - reach_ms - plan["lookback_ms"]
        return bool(oldest_ms >= self._disjoint_from_ms())

    # --- lists and figures ----------------------------------------------------------------------

    def label_names(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]:
        told = self._listed(
            lambda shard, said: shard.label_names(request, cancel, said), warnings, request
        )
        return sorted({name for names in told for name in names})

    def label_values(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]:
        told = self._listed(
            lambda shard, said: shard.label_values(request, cancel, said), warnings, request
        )
        return sorted({value for values in told for value in values})

    def series(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> LabelTable:
        told = self._listed(
            lambda shard, said: shard.series(request, cancel, said), warnings, request
        )
        table = distinct_series(LabelTable.concat(told))
        within_limits(request.get("limits", {}), {"series_selected": len(table)})
        return table

    def metadata(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self.partial_metadata(request, cancel)[0]

    def partial_metadata(
        self, request: Ask, cancel: CancelToken | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        told = self.ask(lambda shard: shard.metadata(request, cancel), request)
        return merged.families_together(told.parts, request.get("limit")), told.warnings

    def stats(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self.partial_stats(request, cancel)[0]

    def partial_stats(
        self, request: Ask, cancel: CancelToken | None = None
    ) -> tuple[dict[str, Any], list[str]]:
        told = self.ask(lambda shard: shard.stats(request, cancel), request)
        return merged.stats_together(told.parts, int(request.get("top", 10))), told.warnings

    def cardinality(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> dict[str, Any]:
        told = self._listed(
            lambda shard, said: shard.cardinality(request, cancel, said), warnings, request
        )
        return merged.cardinality_together(told, int(request.get("top", 10)))

    def ledger(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        """Of all shards or of none: a part would look like lost points. Raises:
        BackendUnavailable."""
        told = self.ask(lambda shard: shard.ledger(request, cancel), request)
        if told.warnings:
            raise BackendUnavailable("; ".join(told.warnings))
        whole: dict[str, Any] = merged.added(told.parts)
        whole["stock"]["raw_scan"] = all(part["stock"]["raw_scan"] for part in told.parts)
        return whole

    def usage_tags(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        """Of all shards or of none. Raises: BackendUnavailable."""
        told = self.ask(lambda shard: shard.usage_tags(request, cancel), request)
        if told.warnings:
            raise BackendUnavailable("; ".join(told.warnings))
        return merged.usage_tags_together(told.parts, int(request.get("top", 10)))

    def coverage(self, request: Ask, cancel: CancelToken | None = None) -> Ask:
        """Hours that are dirty in any shard. Raises: BackendUnavailable where one does not say."""
        told = self.ask(lambda shard: shard.coverage(request, cancel), request)
        if told.warnings:
            raise BackendUnavailable("; ".join(told.warnings))
        hours = {hour for part in told.parts for hour in part["dirty_hours"]}
        return {
            "dirty_hours": sorted(hours),
            "applied": min(p["applied"] for p in told.parts),
            "deletions": [order for part in told.parts for order in part["deletions"]],
        }

    def _listed(
        self,
        question: Callable[[ShardEnd, list[str]], T],
        warnings: list[str] | None,
        request: Ask,
    ) -> list[T]:
        said: list[str] = []
        told = self.ask(lambda shard: question(shard, said), request)
        if warnings is not None:
            warnings += [*dict.fromkeys(said), *told.warnings]
        return told.parts


def once(rows: merged.MergedColumns) -> merged.MergedColumns:
    """Each label set once. Where shards changed hands a series can stand in two: at a step the
    later shard's value counts, which is told."""
    if rows.labels.first_duplicate() is None:
        return rows
    groups = rows.labels.dedup_ids()
    _, first = np.unique(groups, return_index=True)
    values, present = rows.values[first], rows.present[first]
    again = np.ones(len(groups), bool)
    again[first] = False
    for row in np.flatnonzero(again):
        held, group = rows.present[row], groups[row]
        values[group, held] = rows.values[row, held]
        present[group] |= held
    told = [*rows.warnings, changed_hands(int(again.sum()))]
    labels = rows.labels.take(first.astype(np.int64))
    return merged.MergedColumns(labels, values, present, rows.stats, told)


def points_once(answer: merged.MergedPoints) -> merged.MergedPoints:
    """Each label set once, its points by time: of two at one time the later shard's counts."""
    if answer.labels.first_duplicate() is None:
        return answer
    groups = answer.labels.dedup_ids().astype(np.int64)
    _, first = np.unique(groups, return_index=True)
    of_points = np.repeat(groups, np.diff(answer.offsets))
    order = np.lexsort((answer.times_ms, of_points))  # stable: shards stay in their order
    ids, times_ms = of_points[order], answer.times_ms[order]
    last = np.ones(len(order), bool)
    last[:-1] = (ids[1:] != ids[:-1]) | (times_ms[1:] != times_ms[:-1])
    offsets = np.searchsorted(ids[last], np.arange(len(first) + 1)).astype(np.int64)
    return merged.MergedPoints(
        answer.labels.take(first.astype(np.int64)),
        offsets,
        times_ms[last],
        answer.values[order][last],
        answer.stats,
        [*answer.warnings, changed_hands(len(groups) - len(first))],
    )


def changed_hands(count: int) -> str:
    return f"approximate: {count} series stand in two shards, since they changed hands"


def within_limits(limits: Ask, stats: dict[str, Any]) -> None:
    """What the shards kept to one by one must hold for all together. Raises: TenantFault (422)."""
    for limit, (figure, word) in LIMITED.items():
        most = limits.get(limit)
        if most is not None and stats.get(figure, 0) > most:
            words = f"the query's {word} over all shards: {stats[figure]}, the limit is {most}"
            raise TenantFault(422, f"sluiceway-query-{word}-limit", words)


def _give_up(futures: Sequence[Future[Any]]) -> None:
    """What still runs ends by its deadline or the query's cancel token."""
    for future in futures:
        future.cancel()
