"""The reader over tiers, with each tier's part recorded: who is asked what, and what is told."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from sluiceway.clock import SystemClock
from sluiceway.kernels import LabelTable, TierReader
from sluiceway.query.promql.engine import Engine
from sluiceway.query.spent import Spent
from sluiceway.query.stitched import Stitched
from sluiceway.query.tiered import HotReader, TieredReader, Tiers
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
        return {"dirty_hours": self.dirty, "applied": 1}

    def label_names(self, request: Any, cancel: object = None, warnings: Any = None) -> list[str]:
        return ["a", "hot"]


@dataclass
class Files:
    """The files: answer 2 at each step, as exact as they are told."""

    exactness: str = "exact"
    asked: list[tuple[dict[str, Any], list[Any], list[Any]]] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    def evaluate(
        self,
        plan: dict[str, Any],
        files: list[Any],
        points: list[Any] | None = None,
        exact_only: bool = False,
        cancel: object = None,
    ) -> Stitched | None:
        self.asked.append((plan, files, points or []))
        if exact_only and self.exactness != "exact":
            return None
        return columns(plan, 2.0, exactness=self.exactness, bytes_read=10, files_read=len(files))

    def label_names(self, request: Any, files: list[Any], cancel: object = None) -> list[str]:
        return ["cold", "hot"]

    def keep_only(self, paths: set[str]) -> None:
        self.kept = paths


def catalog() -> Catalog:
    files = []
    for day in range(40, 101):
        start = day * DAY_MS
        until = min(start + DAY_MS, NOW_MS - 2 * HOUR_MS)
        files.append(TierFile("warm", f"w{day}", 1, 0, "t", start, until, day, 60_000, 1, 1, 1, 1))
    return Catalog(
        number=1,
        files=tuple(files),
        rolled_until_ms={"t": Marks(warm=NOW_MS - 2 * HOUR_MS)},
        kept_from_ms={"t": Marks(warm=40 * DAY_MS)},
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


def tiered(hot: Hot, files: Files, held: Catalog | None = None) -> TieredReader:
    known = catalog() if held is None else held
    parts = Tiers(cast(HotReader, hot), cast(TierReader, files), lambda: known, SystemClock())
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
