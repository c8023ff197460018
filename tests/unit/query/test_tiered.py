"""The reader over tiers, with each tier's part recorded: who is asked what, and what is told."""

import json
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from sluiceway.clock import SystemClock
from sluiceway.errors import Corruption
from sluiceway.kernels import LabelTable, TierReader
from sluiceway.query.pinned import HotReader, Tiers
from sluiceway.query.promql.engine import Engine
from sluiceway.query.spent import Spent
from sluiceway.query.stitched import Stitched
from sluiceway.query.tiered import TieredReader
from sluiceway.tiers.catalog import Catalog, Marks, TierFile

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW_MS = 100 * DAY_MS + 12 * HOUR_MS


def columns(plan: dict[str, Any], value: float, **stats: Any) -> Stitched:
    """One series' answer, `value` at each step."""
    span_ms, step_ms = plan["end_ms"] - plan["start_ms"], plan["step_ms"]
    count = span_ms // step_ms + 1 if step_ms else 1
    labels = LabelTable.from_lists([{"i": "1"}])
    values = np.full((1, count), value)
    return Stitched(labels, values, np.ones((1, count), dtype=bool), stats, [])


@dataclass
class Hot:
    """The shard: answers 1 at each step."""

    dirty: list[int] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    plans: list[dict[str, Any]] = field(default_factory=list)

    def evaluate(self, plan: dict[str, Any], cancel: object = None) -> Stitched:
        self.asked.append("evaluate")
        self.plans.append(plan)
        return columns(plan, 1.0, cost=7, points_scanned=5)

    def points(self, request: dict[str, Any], cancel: object = None) -> Stitched:
        self.asked.append("points")
        self.plans.append(request)
        return columns({"start_ms": 0, "end_ms": 0, "step_ms": 0}, 0.0)

    def coverage(self, request: dict[str, Any], cancel: object = None) -> dict[str, Any]:
        self.asked.append("coverage")
        return {"dirty_hours": self.dirty, "applied": 1, "deletions": self.orders}

    def label_names(self, request: Any, cancel: object = None, warnings: Any = None) -> list[str]:
        return ["a", "hot"]


@dataclass
class Files:
    """The files: answer 2 at each step, as exact as they are told."""

    exactness: str = "exact"
    relative_error: float = 0.0
    asked: list[tuple[dict[str, Any], list[Any], list[Any]]] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    hidden: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)

    def evaluate(
        self,
        plan: dict[str, Any],
        files: list[Any],
        points: list[Any] | None = None,
        exact_only: bool = False,
        cancel: object = None,
        hidden: dict[str, str] | None = None,
    ) -> Stitched | None:
        self.asked.append((plan, files, points or []))
        self.hidden |= hidden or {}
        self._meet(files)
        if exact_only and self.exactness != "exact":
            return None
        told = {"relative_error": self.relative_error, "bytes_read": 10, "files_read": len(files)}
        return columns(plan, 2.0, exactness=self.exactness, **told)

    def label_names(
        self, request: Any, files: list[Any], cancel: object = None, hidden: Any = None
    ) -> list[str]:
        self._meet(files)
        return ["cold", "hot"] if files else []

    def damaged(self) -> list[tuple[str, str]]:
        return [(path, f"{path}: checksum") for path in sorted(self.met)]

    def _meet(self, files: list[Any]) -> None:
        for path, _, _ in files:
            if path in self.broken:
                self.met.add(path)
                raise Corruption(path)

    def keep_only(self, paths: set[str]) -> None:
        self.kept = paths


def catalog(cold: bool = False) -> Catalog:
    files: list[TierFile] = []
    for day in range(40, 101):
        start = day * DAY_MS
        until = min(start + DAY_MS, NOW_MS - 2 * HOUR_MS)
        files.append(TierFile("warm", f"w{day}", 1, 0, "t", start, until, day, 60_000, 1, 1, 1, 1))
    marks = Marks(NOW_MS - 2 * HOUR_MS, 100 * DAY_MS if cold else 0)
    for day in range(1, 100) if cold else ():
        start = day * DAY_MS
        until = start + DAY_MS
        told = ("t", start, until, 1_000, HOUR_MS, 1, 1, 1, 1)
        files.append(TierFile("cold", f"c{day}", 1, 0, *told))
    return Catalog(
        number=1,
        files=tuple(files),
        rolled_until_ms={"t": marks},
        kept_from_ms={"t": Marks(40 * DAY_MS, DAY_MS if cold else 0)},
        raw_from_ms={"*": 85 * DAY_MS},
    )


def plan(function: str, range_ms: int, start_ms: int, end_ms: int, step_ms: int) -> dict[str, Any]:
    return {
        "tenant": "t",
        "matchers": [{"name": "__name__", "op": "=", "value": "m"}],
        "start_ms": start_ms,
        "end_ms": end_ms,
        "step_ms": step_ms,
        "offset_ms": 0,
        "at_ms": None,
        "lookback_ms": 300_000,
        "range_ms": range_ms,
        "function": function,
        "args": [],
        "extension": None,
        "aggregate": None,
        "limits": {"series_max": 9, "cost_max": 100},
        "timeout_ms": 60_000,
    }


def tiered(
    hot: Hot, files: Files, held: Catalog | None = None, reported: list[str] | None = None
) -> TieredReader:
    known = catalog() if held is None else held
    told = [] if reported is None else reported
    parts = Tiers(
        cast(HotReader, hot),
        cast(TierReader, files),
        lambda: known,
        SystemClock(),
        lambda path, _: told.append(path),
    )
    return TieredReader(parts)


def test_a_recent_query_pays_nothing() -> None:
    hot, files = Hot(), Files()
    asked = plan("rate", 300_000, NOW_MS - HOUR_MS, NOW_MS, 60_000)
    tiered(hot, files).evaluate(asked)
    assert hot.asked == ["evaluate"]
    assert hot.plans == [asked]
    assert not files.asked
    assert files.kept == {f"w{day}" for day in range(40, 101)}


def test_a_long_range_goes_to_windows_and_its_end_to_raw() -> None:
    hot, files = Hot(), Files()
    asked = plan("rate", HOUR_MS, NOW_MS - 30 * DAY_MS, NOW_MS, HOUR_MS)
    answer = tiered(hot, files).evaluate(asked)
    assert hot.asked == ["coverage", "evaluate"]
    assert answer.values[0].tolist() == [2.0] * 719 + [1.0] * 2
    assert answer.present.all()
    # Beside raw and beyond it: the same files, asked for exact answers or for any.
    assert len(files.asked) == 2
    assert answer.stats["infos"] == ["tiers: warm, raw; exact"]
    assert answer.stats["bytes_read"] == 20
    # What the first segments cost is not there for the later ones.
    assert hot.plans[0]["limits"]["cost_max"] == 100


def test_what_windows_cannot_say_exactly_raw_says_while_it_can() -> None:
    hot, files = Hot(), Files("approximate")
    asked = plan("rate", HOUR_MS, NOW_MS - 20 * DAY_MS, NOW_MS, HOUR_MS)
    answer = tiered(hot, files).evaluate(asked)
    # raw holds 15 days and a half: those are raw's, the rest is as good as it gets.
    assert answer.values[0].tolist().count(1.0) == 15 * 24 + 12
    assert answer.stats["infos"] == ["tiers: warm, raw; approximate"]


def test_dirty_hours_are_raws() -> None:
    hot, files = Hot(dirty=[90 * DAY_MS]), Files()
    asked = plan("rate", HOUR_MS, 89 * DAY_MS, 91 * DAY_MS, HOUR_MS)
    answer = tiered(hot, files).evaluate(asked)
    raw = [step for step, value in enumerate(answer.values[0].tolist()) if value == 1.0]
    assert raw == [25]


def test_a_straddling_window_takes_points_beside_windows() -> None:
    hot, files = Hot(), Files()
    asked = plan("increase", 30 * DAY_MS, NOW_MS, NOW_MS, 0)
    answer = tiered(hot, files).evaluate(asked)
    assert hot.asked == ["coverage", "points"]
    assert hot.plans[0]["start_ms"] == NOW_MS - 2 * HOUR_MS
    assert hot.plans[0]["keep_stale"] is True
    (_, owned, points) = files.asked[0]
    assert owned[0] == ("w70", "warm", [(70 * DAY_MS + 12 * HOUR_MS, 71 * DAY_MS)])
    assert points[0][1] == [(NOW_MS - 2 * HOUR_MS, NOW_MS)]
    assert answer.stats["infos"] == ["tiers: warm, raw; exact"]


def test_without_rollups_nothing_is_asked_of_them() -> None:
    hot, files = Hot(), Files()
    asked = plan("rate", HOUR_MS, 0, NOW_MS, DAY_MS)
    tiered(hot, files, Catalog()).evaluate(asked)
    assert hot.asked == ["evaluate"]


@pytest.mark.parametrize(
    ("start_ms", "names"),
    [(NOW_MS - DAY_MS, ["a", "hot"]), (50 * DAY_MS, ["a", "cold", "hot"])],
)
def test_names_beyond_raw_come_from_files(start_ms: int, names: list[str]) -> None:
    request = {"tenant": "t", "start_ms": start_ms, "end_ms": NOW_MS, "matchers": []}
    assert tiered(Hot(), Files()).label_names(request) == names


def test_the_engine_tells_tiers() -> None:
    """What stats say of tiers comes to the answer's infos and to what was spent."""
    engine, spent = Engine(tiered(Hot(), Files())), Spent()
    start_ms = NOW_MS - 30 * DAY_MS
    result = engine.query_range("t", "rate(m_total[1h])", start_ms, NOW_MS, HOUR_MS, spent=spent)
    assert result.infos == ["tiers: warm, raw; exact"]
    assert list(spent.tiers) == ["warm", "raw"]
    assert spent.bytes_read == 20


def test_a_damaged_warm_file_is_raws_while_raw_is_there() -> None:
    hot, files, reported = Hot(), Files(broken={"w90"}), list[str]()
    asked = plan("rate", HOUR_MS, 89 * DAY_MS, 92 * DAY_MS, HOUR_MS)
    answer = tiered(hot, files, reported=reported).evaluate(asked)
    raw = [step for step, value in enumerate(answer.values[0].tolist()) if value == 1.0]
    assert raw == list(range(25, 49)), "the day's windows, and no others"
    assert answer.stats["infos"] == ["tiers: warm, raw; exact"]
    assert answer.warnings == ["a file of rollups could not be read: w90: checksum"]
    assert reported == ["w90"]


def test_a_damaged_file_is_the_other_tiers() -> None:
    files = Files(broken={"w50"})
    asked = plan("rate", 90 * 60_000, 50 * DAY_MS, 51 * DAY_MS, 90 * 60_000)
    answer = tiered(Hot(), files, catalog(cold=True)).evaluate(asked)
    tried = [path for _, owned, _ in files.asked[1:] for path, _, _ in owned]
    assert "c50" in tried and "w50" not in tried
    assert len(answer.warnings) == 1
    files = Files(broken={"c50"})
    asked = plan("rate", HOUR_MS, 50 * DAY_MS, 51 * DAY_MS, HOUR_MS)
    answer = tiered(Hot(), files, catalog(cold=True)).evaluate(asked)
    tried = [path for _, owned, _ in files.asked[1:] for path, _, _ in owned]
    assert "w50" in tried and "c50" not in tried
    assert answer.stats["infos"] == ["tiers: cold, warm; exact"]


def test_where_nobody_else_holds_the_hours_the_gap_is_told() -> None:
    files = Files(broken={"w50"})
    asked = plan("rate", HOUR_MS, 49 * DAY_MS, 53 * DAY_MS, HOUR_MS)
    answer = tiered(Hot(), files).evaluate(asked)
    assert answer.stats["infos"] == ["tiers: warm, raw; approximate"]
    assert answer.warnings[1] == (
        "nothing else holds 1970-02-20T00:00:00Z to 1970-02-21T00:00:00Z: the answer lacks it"
    )
    warnings: list[str] = []
    request = {"tenant": "t", "start_ms": 49 * DAY_MS, "end_ms": 52 * DAY_MS, "matchers": []}
    assert tiered(Hot(), files).label_names(request, None, warnings) == ["a", "cold", "hot"]
    assert warnings


def test_damage_that_is_no_files_is_no_answer() -> None:
    class Broken(Hot):
        def evaluate(self, plan: dict[str, Any], cancel: object = None) -> Stitched:
            raise Corruption("block")

    asked = plan("rate", HOUR_MS, NOW_MS - 30 * DAY_MS, NOW_MS, HOUR_MS)
    with pytest.raises(Corruption):
        tiered(Broken(), Files()).evaluate(asked)


def test_what_pending_orders_take_is_hidden_in_files_that_were_made_before() -> None:
    order = {"number": 3, "matchers": [{"name": "a", "op": "=", "value": "b"}], "before_ms": None}
    held = catalog()
    made = tuple(msgspec.structs.replace(f, orders=3 if f.path == "w60" else 2) for f in held.files)
    held = msgspec.structs.replace(held, files=made)
    files = Files()
    asked = plan("rate", HOUR_MS, 59 * DAY_MS, 61 * DAY_MS, HOUR_MS)
    tiered(Hot(orders=[order]), files, held).evaluate(asked)
    assert sorted(files.hidden) == ["w58", "w59"]
    taken = {name: order[name] for name in ("matchers", "before_ms")}
    assert json.loads(files.hidden["w59"]) == [taken]


def test_windows_that_lack_points_of_damaged_pages_are_never_exact() -> None:
    held = catalog()
    lossy = tuple(
        msgspec.structs.replace(f, lost_points=7 if f.path == "w60" else 0) for f in held.files
    )
    reader = tiered(Hot(), Files(), msgspec.structs.replace(held, files=lossy))
    asked = plan("rate", HOUR_MS, 60 * DAY_MS + HOUR_MS, 61 * DAY_MS, HOUR_MS)
    answer = reader.evaluate(asked)
    assert answer.stats["infos"] == ["tiers: warm; approximate"]
    assert answer.warnings == ["rollups lack points of damaged raw pages: 7 at most"]
    asked = plan("rate", HOUR_MS, 62 * DAY_MS, 63 * DAY_MS, HOUR_MS)
    assert reader.evaluate(asked).stats["infos"] == ["tiers: warm; exact"]


def test_quantiles_from_sketches_say_their_error_and_ask_hours_first() -> None:
    held = catalog(cold=True)
    kept = tuple(msgspec.structs.replace(f, sketches=int(f.tier == "cold")) for f in held.files)
    sketched = msgspec.structs.replace(held, files=kept)
    asked = plan("quantile_over_time", HOUR_MS, 60 * DAY_MS, 61 * DAY_MS, HOUR_MS)
    files = Files("bounded", 0.01)
    answer = tiered(Hot(), files, sketched).evaluate(asked)
    # The fake refuses what is not exact, so the finer tier is asked too.
    assert [tier for _, paths, _ in files.asked for _, tier, _ in paths[:1]] == ["cold", "warm"]
    assert answer.stats["infos"] == ["tiers: warm; bounded(0.01)"]
    exact = tiered(Hot(), Files(), sketched).evaluate(asked)
    assert exact.stats["infos"] == ["tiers: cold; exact"]
    moved = {**asked, "start_ms": 60 * DAY_MS + 1, "end_ms": 61 * DAY_MS + 1}
    answer = tiered(Hot(), Files("bounded", 0.01), sketched).evaluate(moved)
    assert answer.stats["infos"] == ["tiers: warm; bounded(1m, 0.01)"]
    plain = tiered(Hot(), Files("approximate"), held).evaluate(asked)
    assert plain.stats["infos"] == ["tiers: warm; approximate"]
