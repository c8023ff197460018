"""One reader over all tiers: raw at the shard, windows in files, and what both say of a step.

Invariant: a query sees one catalog from beginning to end, taken after the shard has said which
hours are dirty, so that a window never hides a point that was acked before the query came. A query
that only raw can answer asks the shard exactly as if there were no tiers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sluiceway.clock import Clock
from sluiceway.errors import Corruption
from sluiceway.kernels import CancelToken, Columns, LabelTable, RawPoints, TierReader
from sluiceway.query.api.interface import Ask, LabelReader
from sluiceway.query.coverage import ALWAYS_MS, Coverage, Rollup, subtract
from sluiceway.query.interface import PointSeries, ShardReader, StepColumns
from sluiceway.query.router import (
    RAW,
    STRADDLE,
    Piece,
    Question,
    Segment,
    rollup_matters,
    route,
)
from sluiceway.query.stitched import Answered, distinct_series, stitched, warned
from sluiceway.tiers.catalog import Catalog
from sluiceway.tiers.ownership import FileRanges, Ownership, outdated

WINDOWS_MS = {"warm": 60_000, "cold": 3_600_000}
COVERAGE_MS_MAX = 10_000
"""How long the shard may take to say which hours are dirty."""


class HotReader(ShardReader, LabelReader, Protocol):
    """The shard: `kernels.ShardClient`."""

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> Columns: ...
    def points(self, request: Ask, cancel: CancelToken | None = None) -> RawPoints: ...
    def coverage(self, request: Ask, cancel: CancelToken | None = None) -> Ask:
        """{"dirty_hours": [their starts in ms], "applied": sequence}."""
        ...


@dataclass(frozen=True, slots=True)
class Tiers:
    """What a query over several tiers needs. `catalog` looks for a newer one each time."""

    hot: HotReader
    files: TierReader
    catalog: Callable[[], Catalog]
    clock: Clock

    def look(self) -> tuple[Catalog, list[str]]:
        """The catalog now. One that cannot be read is as good as none, which is warned of."""
        try:
            return self.catalog(), []
        except (Corruption, OSError) as error:
            return Catalog(), [f"rollups cannot be read, raw points alone answered: {error}"]


def coverage_of(catalog: Catalog, tenant: str) -> Coverage:
    """What the catalog's marks say of a tenant. A tier that holds nothing of it is left out."""
    rolled, kept = catalog.rolled(tenant), catalog.kept_from(tenant)
    marks = (("warm", kept.warm, rolled.warm), ("cold", kept.cold, rolled.cold))
    rollups = tuple(
        Rollup(tier, WINDOWS_MS[tier], ((kept_ms or -ALWAYS_MS, until_ms),))
        for tier, kept_ms, until_ms in marks
        if until_ms > kept_ms
    )
    return Coverage(catalog.raw_from(tenant) or -ALWAYS_MS, rollups)


def current(held: Coverage, catalog: Catalog, tenant: str, ownership: Ownership) -> Coverage:
    """The coverage without cold hours whose minutes were rolled again since."""
    if len(held.rollups) < len(WINDOWS_MS):
        return held
    warm, cold = held.rollups
    covered = cold.covered
    tiers = (ownership.of(catalog, tenant, "warm"), ownership.of(catalog, tenant, "cold"))
    for gone in outdated(*tiers):
        covered = subtract(covered, gone)
    return replace(held, rollups=(warm, replace(cold, covered=covered)))


def question_of(plan: Ask) -> Question:
    """The windows that a plan reads."""
    fixed, step_ms = plan["at_ms"], plan["step_ms"]
    span_ms = plan["end_ms"] - plan["start_ms"]
    extended = plan["extension"] is not None
    return Question(
        plan["function"],
        (plan["start_ms"] if fixed is None else fixed) - plan["offset_ms"],
        step_ms if fixed is None else 0,
        span_ms // step_ms + 1 if step_ms else 1,
        plan["lookback_ms"] if plan["range_ms"] is None else plan["range_ms"],
        extended,
        plan["lookback_ms"] if extended else 0,
    )


def part_of(plan: Ask, first: int, last: int) -> Ask:
    """The plan of its steps first..last."""
    start_ms, step_ms = plan["start_ms"], plan["step_ms"]
    cut = {
        "start_ms": start_ms + first * step_ms,
        "end_ms": start_ms + last * step_ms,
        "args": [arg[first : last + 1] if isinstance(arg, list) else arg for arg in plan["args"]],
    }
    return {**plan, **cut}


def metric_of(matchers: list[dict[str, str]]) -> str | None:
    """The one metric that is asked for."""
    named = [m["value"] for m in matchers if m["name"] == "__name__" and m["op"] == "="]
    return named[0] if named else None


@dataclass(slots=True)
class Left:
    """What is left of one plan's time and cost, over its segments."""

    clock: Clock
    plan: Ask
    started_s: float
    cost: int = 0

    def of(self, plan: Ask) -> Ask:
        limits = dict(plan["limits"])
        if "cost_max" in limits:
            limits["cost_max"] = max(0, limits["cost_max"] - self.cost)
        asked = {**plan, "limits": limits}
        if "timeout_ms" in asked:
            spent_ms = int((self.clock.monotonic_s() - self.started_s) * 1000)
            asked["timeout_ms"] = max(1, asked["timeout_ms"] - spent_ms)
        return asked


class TieredReader:
    """Tiers as one shard; a TiersReader. Thread-safe; `pinned` is what a query reads through."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers
        self._ownership = Ownership()
        self._number = 0

    def pinned(self) -> "PinnedTiers":
        """The tiers as they stand now, for one query."""
        pinned = PinnedTiers(self._tiers, self._ownership)
        if pinned.catalog.number != self._number:
            # Files that are unlinked must not take the disk's room for having been read once.
            self._number = pinned.catalog.number
            named = {file.path for file in pinned.catalog.files}
            self._tiers.files.keep_only(named | {held.path for held in pinned.catalog.grace})
        return pinned

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> StepColumns:
        return self.pinned().evaluate(plan, cancel)

    def points(self, request: Ask, cancel: CancelToken | None = None) -> PointSeries:
        return self.pinned().points(request, cancel)

    def label_names(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]:
        hot = self._tiers.hot.label_names(request, cancel, warnings)
        files = self._files_beyond_raw(request)
        if not files:
            return hot
        return sorted({*hot, *self._tiers.files.label_names(request, files, cancel)})

    def label_values(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]:
        hot = self._tiers.hot.label_values(request, cancel, warnings)
        files = self._files_beyond_raw(request)
        if not files:
            return hot
        return sorted({*hot, *self._tiers.files.label_values(request, files, cancel)})

    def series(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> LabelTable:
        hot = self._tiers.hot.series(request, cancel, warnings)
        files = self._files_beyond_raw(request)
        if not files:
            return hot
        cold = self._tiers.files.series(request, files, cancel)
        return distinct_series(LabelTable.concat([hot, cold]))

    def metadata(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self._tiers.hot.metadata(request, cancel)

    def stats(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self._tiers.hot.stats(request, cancel)

    def cardinality(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> dict[str, Any]:
        return self._tiers.hot.cardinality(request, cancel, warnings)

    def ledger(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self._tiers.hot.ledger(request, cancel)

    def _files_beyond_raw(self, request: Ask) -> list[FileRanges]:
        """Files with series of the request's time that raw has forgotten."""
        (catalog, _), tenant = self._tiers.look(), request["tenant"]
        raw_from_ms = catalog.raw_from(tenant)
        start_ms = request.get("start_ms")
        start_ms = -ALWAYS_MS if start_ms is None else start_ms - 1
        end_ms = request.get("end_ms")
        end_ms = raw_from_ms if end_ms is None else min(end_ms, raw_from_ms)
        if not raw_from_ms or start_ms >= end_ms:
            return []
        files: list[FileRanges] = []
        metric = metric_of(request.get("matchers", []))
        for rollup in reversed(coverage_of(catalog, tenant).rollups):
            owned = self._ownership.of(catalog, tenant, rollup.tier)
            files += owned.files(start_ms, end_ms, metric)
        return files


@dataclass(slots=True)
class PinnedTiers:
    """The tiers as one query sees them. Not shared between threads."""

    tiers: Tiers
    ownership: Ownership
    catalog: Catalog = field(init=False)
    warnings: list[str] = field(init=False)
    dirty: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.catalog, self.warnings = self.tiers.look()

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> StepColumns:
        """As ShardReader's; the answer's stats also tell tiers, exactness, bytes and files."""
        left = Left(self.tiers.clock, plan, self.tiers.clock.monotonic_s())
        question, held = question_of(plan), coverage_of(self.catalog, plan["tenant"])
        if not held.rollups or not rollup_matters(question, held.raw_from_ms):
            return warned(self.tiers.hot.evaluate(plan, cancel), self.warnings)
        segments = route(question, self._clean(plan["tenant"], cancel))
        if segments == [Segment(RAW, 0, question.steps - 1)]:
            return self.tiers.hot.evaluate(left.of(plan), cancel)
        answers: list[Answered] = []
        for segment in segments:
            part = part_of(plan, segment.first, segment.last)
            answer = self._segment(question, segment, left, part, cancel)
            left.cost += int(answer.columns.stats.get("cost", 0))
            answers.append(answer)
        return stitched(answers, question.steps)

    def points(self, request: Ask, cancel: CancelToken | None = None) -> PointSeries:
        """Raw points; those that raw has forgotten are gone, which the stats tell."""
        answer = self.tiers.hot.points(request, cancel)
        if request["start_ms"] < self.catalog.raw_from(request["tenant"]):
            answer.stats["infos"] = ["tiers: raw points of a part of the range are kept no more"]
        return answer

    def _clean(self, tenant: str, cancel: CancelToken | None) -> Coverage:
        """What the tiers hold, dirty hours told; asked once a query."""
        if tenant not in self.dirty:
            asked = {"tenant": tenant, "timeout_ms": COVERAGE_MS_MAX}
            told = self.tiers.hot.coverage(asked, cancel)
            if not self.dirty:
                # Newer than what the shard said: an hour that is clean by then is in its files.
                self.catalog, self.warnings = self.tiers.look()
            self.dirty[tenant] = tuple(sorted(told["dirty_hours"]))
        held = replace(coverage_of(self.catalog, tenant), dirty_hours=self.dirty[tenant])
        return current(held, self.catalog, tenant, self.ownership)

    def _segment(
        self,
        question: Question,
        segment: Segment,
        left: Left,
        plan: Ask,
        cancel: CancelToken | None,
    ) -> Answered:
        if segment.tier == RAW:
            columns = self.tiers.hot.evaluate(left.of(plan), cancel)
            return Answered(segment.first, (RAW,), "exact", 0, columns)
        first_ms = question.first_ms + question.step_ms * segment.first
        last_ms = question.first_ms + question.step_ms * segment.last
        reach_ms = question.range_ms + question.reach_ms
        span = (first_ms - reach_ms, last_ms + question.reach_ms)
        if segment.tier == STRADDLE:
            return self._straddling(segment, left, plan, cancel)
        window_ms = WINDOWS_MS[segment.tier]
        # Steps between windows are moved back by up to one, ranges made whole.
        files = self._files(plan, Piece(segment.tier, span[0] - 2 * window_ms, span[1]))
        wanted = segment.otherwise is not None
        answer = self.tiers.files.evaluate(left.of(plan), files, exact_only=wanted, cancel=cancel)
        if answer is None:
            assert segment.otherwise is not None, "only then an answer may be refused"
            other = replace(segment, tier=segment.otherwise, otherwise=None)
            return self._segment(question, other, left, plan, cancel)
        return Answered.of_windows(segment, (segment.tier,), window_ms, answer)

    def _straddling(
        self, segment: Segment, left: Left, plan: Ask, cancel: CancelToken | None
    ) -> Answered:
        """Windows from files and points from the shard, met in one pass."""
        files: list[FileRanges] = []
        points: list[tuple[RawPoints, list[tuple[int, int]]]] = []
        for piece in segment.pieces:
            if piece.tier != RAW:
                files += self._files(plan, piece)
                continue
            asked = {name: plan[name] for name in ("tenant", "matchers", "limits")}
            asked |= {"start_ms": piece.from_ms, "end_ms": piece.until_ms, "keep_stale": True}
            if "timeout_ms" in plan:
                asked["timeout_ms"] = plan["timeout_ms"]
            found = self.tiers.hot.points(left.of(asked), cancel)
            left.cost += int(found.stats.get("cost", 0))
            points.append((found, [(piece.from_ms, piece.until_ms)]))
        tiers = tuple(dict.fromkeys(piece.tier for piece in segment.pieces))
        answer = self.tiers.files.evaluate(left.of(plan), files, points=points, cancel=cancel)
        assert answer is not None, "nothing was refused"
        return Answered.of_windows(segment, tiers, segment.bound_ms, answer)

    def _files(self, plan: Ask, piece: Piece) -> list[FileRanges]:
        owned = self.ownership.of(self.catalog, plan["tenant"], piece.tier)
        metric = metric_of(plan["matchers"])
        return owned.files(piece.from_ms, piece.until_ms, metric)
