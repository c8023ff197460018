"""All tiers as one query sees them: raw at the shard, windows in files, both where they meet.

Invariant: a query sees one catalog from beginning to end, taken after the shard has said which
hours are dirty, so that a window never hides a point that was acked before the query came. A query
that only raw can answer asks the shard exactly as if there were no tiers.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import CancelToken, Columns, RawPoints, TierReader
from sluiceway.query.api.interface import Ask, LabelReader
from sluiceway.query.coverage import ALWAYS_MS, Coverage, Rollup, subtract
from sluiceway.query.files import FileAway, QueryFiles, hidden_in
from sluiceway.query.interface import PointSeries, ShardReader, StepColumns
from sluiceway.query.router import (
    RAW,
    SKETCHED,
    STRADDLE,
    Piece,
    Question,
    Segment,
    rollup_matters,
    route,
)
from sluiceway.query.stitched import Answered, stitched, warned
from sluiceway.tiers.catalog import Catalog, TierFile
from sluiceway.tiers.ownership import FileRanges, Ownership, outdated

WINDOWS_MS = {"warm": 60_000, "cold": 3_600_000}
COVERAGE_MS_MAX = 10_000
"""How long the shard may take to say which hours are dirty."""
FETCH_MS_MAX = 60_000
"""How long a request without a deadline waits for objects."""
READ_TRIES_MAX = 16
"""Of a query that meets damaged files; each try knows of all that were met before it."""
Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class AskFiles(Protocol[Found_co]):
    """A method of TierReader."""

    def __call__(
        self,
        request: Ask,
        files: list[FileRanges],
        cancel: CancelToken | None,
        hidden: dict[str, str],
        /,
    ) -> Found_co: ...


class Objects(Protocol):
    """Files on an object store (query/objects.py)."""

    def local(
        self, files: Mapping[str, TierFile], left_s: Callable[[], float], cancel: CancelToken | None
    ) -> AbstractContextManager[dict[str, str]]:
        """By path of a file that is not here, where it is while the context lasts."""
        ...


def unreported(path: str, what: str) -> None:
    """Damage is told to the asker alone."""


class HotReader(ShardReader, LabelReader, Protocol):
    """The shard: `kernels.ShardClient`."""

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> Columns: ...
    def points(self, request: Ask, cancel: CancelToken | None = None) -> RawPoints: ...
    def coverage(self, request: Ask, cancel: CancelToken | None = None) -> Ask:
        """{"dirty_hours": [their starts in ms], "applied": sequence, "deletions": [pending orders
        as number, matchers, before_ms]}."""
        ...


@dataclass(frozen=True, slots=True)
class Tiers:
    """What a query over several tiers needs. `catalog` looks for a newer one each time; `report`
    is told of damaged files by their path, and what was found."""

    hot: HotReader
    files: TierReader
    catalog: Callable[[], Catalog]
    clock: Clock
    report: Callable[[str, str], None] = unreported
    objects: Objects | None = None

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


def sketched(held: Coverage, catalog: Catalog, tenant: str) -> Coverage:
    """The coverage, sketches told: windows of one or two points say as much without, so that one
    tier's make it worth asking the other."""
    if not any(file.sketches for file in catalog.of(tenant)):
        return held
    return replace(held, rollups=tuple(replace(one, sketched=True) for one in held.rollups))


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


@dataclass(slots=True)
class PinnedTiers:
    """The tiers as one query, of one tenant, sees them. Not shared between threads."""

    tiers: Tiers
    ownership: Ownership
    catalog: Catalog = field(init=False)
    warnings: list[str] = field(init=False)
    files: QueryFiles = field(init=False)
    told: Ask | None = None
    """What the shard said of dirty hours and orders to delete."""

    def __post_init__(self) -> None:
        self.catalog, self.warnings = self.tiers.look()
        self.files = QueryFiles(self.ownership)

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> StepColumns:
        """As ShardReader's; the answer's stats also tell tiers, exactness, bytes and files."""
        left = Left(self.tiers.clock, plan, self.tiers.clock.monotonic_s())
        question, held = question_of(plan), coverage_of(self.catalog, plan["tenant"])
        if not held.rollups or not rollup_matters(question, held.raw_from_ms):
            return warned(self.tiers.hot.evaluate(plan, cancel), self.warnings)
        return self._reading(lambda: self._evaluate(question, left, plan, cancel))

    def points(self, request: Ask, cancel: CancelToken | None = None) -> PointSeries:
        """Raw points; those that raw has forgotten are gone, which the stats tell."""
        answer = self.tiers.hot.points(request, cancel)
        if request["start_ms"] < self.catalog.raw_from(request["tenant"]):
            answer.stats["infos"] = ["tiers: raw points of a part of the range are kept no more"]
        return answer

    def beyond_raw(
        self,
        ask: AskFiles[Found],
        request: Ask,
        cancel: CancelToken | None,
        warnings: list[str] | None,
    ) -> Found | None:
        """What files say of the request's time that raw has forgotten; None: there are none."""
        if not self._files_beyond_raw(request):
            return None
        self._ask_shard(request["tenant"], cancel)

        started_s = self.tiers.clock.monotonic_s()

        def found() -> Found:
            files = self._files_beyond_raw(request)
            with self._local(files, request, started_s, cancel) as (here, hidden):
                return ask(request, here, cancel, hidden)

        told = self._reading(found)
        if warnings is not None:
            warnings += self.files.told(())
        return told

    def _reading(self, read: Callable[[], Found]) -> Found:
        """What `read` gives, without files that turn out to be damaged. Raises: Corruption where it
        is not a file's."""
        for _ in range(READ_TRIES_MAX):
            try:
                return read()
            except Corruption:
                found = self.files.set_aside(self.tiers.files.damaged())
                if not found:
                    raise
                for path, what in found.items():
                    self.tiers.report(path, what)
            except FileAway as error:
                self.files.miss(error)
                if not error.for_now:
                    self.tiers.report(error.path, error.what)
        return read()

    def _evaluate(
        self, question: Question, left: Left, plan: Ask, cancel: CancelToken | None
    ) -> StepColumns:
        tenant, metric = plan["tenant"], metric_of(plan["matchers"])
        held = self.files.without(self._clean(tenant, cancel), self.catalog, tenant, metric)
        if question.function in SKETCHED:
            held = sketched(held, self.catalog, tenant)
        segments = route(question, held)
        last_ms = question.first_ms + question.step_ms * (question.steps - 1)
        reach_ms = question.reach_ms
        span = (question.first_ms - question.range_ms - reach_ms, last_ms + reach_ms)
        gaps = self.files.gaps(held, self.catalog, tenant, metric, span)
        if gaps and self.files.for_now:
            raise BackendUnavailable(f"object store: {self.files.away[min(self.files.for_now)]}")
        if segments == [Segment(RAW, 0, question.steps - 1)]:
            warnings = [*self.warnings, *self.files.told(gaps)]
            return warned(self.tiers.hot.evaluate(left.of(plan), cancel), warnings)
        answers: list[Answered] = []
        for segment in segments:
            part = part_of(plan, segment.first, segment.last)
            answer = self._segment(question, segment, left, part, cancel)
            left.cost += int(answer.columns.stats.get("cost", 0))
            answers.append(answer)
        warnings = [*self.warnings, *self.files.told(gaps)]
        flawed = bool(gaps or self.files.lossy)
        whole = stitched(answers, question.steps, flawed)
        if not len(whole.labels):
            # Native histograms have no windows: raw, which keeps them, refuses where there are any.
            self.tiers.hot.evaluate(left.of(plan), cancel)
        return warned(whole, warnings)

    def _files_beyond_raw(self, request: Ask) -> list[FileRanges]:
        """Files with series of the request's time that raw has forgotten."""
        tenant = request["tenant"]
        raw_from_ms = self.catalog.raw_from(tenant)
        start_ms = request.get("start_ms")
        start_ms = -ALWAYS_MS if start_ms is None else start_ms - 1
        end_ms = request.get("end_ms")
        end_ms = raw_from_ms if end_ms is None else min(end_ms, raw_from_ms)
        if not raw_from_ms or start_ms >= end_ms:
            return []
        files: list[FileRanges] = []
        metric = metric_of(request.get("matchers", []))
        for rollup in reversed(coverage_of(self.catalog, tenant).rollups):
            within = (start_ms, end_ms)
            files += self.files.of(self.catalog, tenant, rollup.tier, within, metric)
        return files

    def _ask_shard(self, tenant: str, cancel: CancelToken | None) -> Ask:
        """Dirty hours and orders to delete; asked once a query."""
        if self.told is None:
            asked = {"tenant": tenant, "timeout_ms": COVERAGE_MS_MAX}
            self.told = self.tiers.hot.coverage(asked, cancel)
            # Newer than what the shard said: an hour that is clean by then is in its files, and so
            # is an order that is done.
            self.catalog, self.warnings = self.tiers.look()
        return self.told

    def _clean(self, tenant: str, cancel: CancelToken | None) -> Coverage:
        """What the tiers hold, dirty hours told."""
        dirty = tuple(sorted(self._ask_shard(tenant, cancel)["dirty_hours"]))
        held = replace(coverage_of(self.catalog, tenant), dirty_hours=dirty)
        return current(held, self.catalog, tenant, self.ownership)

    @contextmanager
    def _local(
        self, files: list[FileRanges], asked: Ask, started_s: float, cancel: CancelToken | None
    ) -> Iterator[tuple[list[FileRanges], dict[str, str]]]:
        """The files as they are to be read, those of the object store fetched, and what is hidden
        in them. Raises: FileAway, DeadlineExceeded, Cancelled."""
        hidden, objects = self._hidden(files), self.tiers.objects
        if objects is None:
            yield files, hidden
            return
        by_path = {file.path: file for file in self.catalog.files if file.remote}
        remote = {path: by_path[path] for path, _, _ in files if path in by_path}
        limit_s = asked.get("timeout_ms", FETCH_MS_MAX) / 1000

        def left_s() -> float:
            return float(limit_s - (self.tiers.clock.monotonic_s() - started_s))

        with objects.local(remote, left_s, cancel) as places:
            self.files.places |= {place: path for path, place in places.items()}
            here = [(places.get(path, path), tier, ranges) for path, tier, ranges in files]
            yield here, {places.get(path, path): taken for path, taken in hidden.items()}

    def _hidden(self, files: list[FileRanges]) -> dict[str, str]:
        orders = () if self.told is None else self.told.get("deletions", ())
        by_path = {file.path: file for file in self.catalog.files} if orders else {}
        return hidden_in(files, orders, by_path)

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
        with self._local(files, plan, left.started_s, cancel) as (here, hidden):
            answer = self.tiers.files.evaluate(
                left.of(plan), here, exact_only=wanted, cancel=cancel, hidden=hidden
            )
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
        with self._local(files, plan, left.started_s, cancel) as (here, hidden):
            answer = self.tiers.files.evaluate(
                left.of(plan), here, points=points, cancel=cancel, hidden=hidden
            )
        assert answer is not None, "nothing was refused"
        return Answered.of_windows(segment, tiers, segment.bound_ms, answer)

    def _files(self, plan: Ask, piece: Piece) -> list[FileRanges]:
        within, metric = (piece.from_ms, piece.until_ms), metric_of(plan["matchers"])
        return self.files.of(self.catalog, plan["tenant"], piece.tier, within, metric)
