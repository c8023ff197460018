"""Answers of several tiers as one, with what is told of them.

Invariant: what is told holds for every step: the exactness is the worst of all segments'.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sluiceway.kernels import LabelTable, stitch_columns
from sluiceway.query.interface import Bools, Floats, StepColumns
from sluiceway.query.promql.durations import format_duration
from sluiceway.query.router import Exactness, Segment

EXACT, BOUNDED, APPROXIMATE = "exact", "bounded", "approximate"
SUMS = ("points_estimated", "cost", "points_scanned", "evaluate_us", "bytes_read", "files_read")
MOST = ("series_selected", "lag_records")


@dataclass(frozen=True, slots=True)
class Answered:
    """One segment's columns: who gave them, and how they stand to raw."""

    first: int
    tiers: tuple[str, ...]
    exactness: Exactness
    bound_ms: int
    columns: StepColumns

    @classmethod
    def of_windows(
        cls, segment: Segment, tiers: tuple[str, ...], window_ms: int, columns: StepColumns
    ) -> "Answered":
        """Of files: they say how exact they could be, which is never better than the router's."""
        said = columns.stats["exactness"]
        worst: Exactness = segment.exactness
        if segment.sketched and not segment.bound_ms:
            # Windows of one point each need no sketch: the files say which it was.
            worst = "exact"
        if APPROXIMATE in (said, worst):
            worst = "approximate"
        elif BOUNDED in (said, worst):
            worst = "bounded"
        # Where no edge was moved, what is bounded are rounded values, or sketches.
        moved = segment.exactness == BOUNDED or not columns.stats.get("digits", 0)
        if segment.sketched:
            moved = bool(segment.bound_ms)
        bound_ms = window_ms if worst == BOUNDED and moved else 0
        return cls(segment.first, tiers, worst, bound_ms, columns)

    def words(self) -> str:
        digits = int(self.columns.stats.get("digits", 0))
        if self.exactness != BOUNDED:
            return self.exactness
        bounds = [format_duration(self.bound_ms)] if self.bound_ms else []
        # Rounding keeps a value within half a unit of its last digit.
        bounds += [f"{0.5 * 10.0 ** (1 - digits):g}"] if digits else []
        error = float(self.columns.stats.get("relative_error", 0.0))
        bounds += [f"{error:g}"] if error else []
        return f"{BOUNDED}({', '.join(bounds)})"


@dataclass(slots=True)
class Stitched:
    """Step columns out of several segments."""

    labels: LabelTable
    values: Floats
    present: Bools
    stats: dict[str, Any]
    warnings: list[str]


def warned(answer: StepColumns, warnings: list[str]) -> StepColumns:
    """The answer with further warnings."""
    if not warnings:
        return answer
    told = [*answer.warnings, *warnings]
    return Stitched(answer.labels, answer.values, answer.present, answer.stats, told)


def stitched(answers: list[Answered], step_count: int, flawed: bool = False) -> StepColumns:
    """The segments of one leaf, in order of their steps, as one answer. `flawed`: something is
    missing that raw would have."""
    stats = told(answers, flawed)
    warnings = list(dict.fromkeys(w for answer in answers for w in answer.columns.warnings))
    if len(answers) == 1:
        only = answers[0].columns
        return Stitched(only.labels, only.values, only.present, stats, warnings)
    labels, values, present = stitch_columns(
        [(a.columns.labels, a.columns.values, a.columns.present, a.first) for a in answers],
        step_count,
    )
    return Stitched(labels, values, present, stats, warnings)


def told(answers: list[Answered], flawed: bool) -> dict[str, Any]:
    """Sums over the segments, the tiers that took part, and an info for the answer."""
    stats: dict[str, Any] = {
        key: sum(int(answer.columns.stats.get(key, 0)) for answer in answers) for key in SUMS
    }
    for key in MOST:
        stats[key] = max(int(answer.columns.stats.get(key, 0)) for answer in answers)
    tiers = list(dict.fromkeys(tier for answer in answers for tier in answer.tiers))
    rank = (EXACT, BOUNDED, APPROXIMATE)
    worst = max(answers, key=lambda answer: (rank.index(answer.exactness), answer.bound_ms))
    stats["tiers"] = tiers
    words = APPROXIMATE if flawed else worst.words()
    stats["exactness"] = words
    stats["infos"] = [f"tiers: {', '.join(tiers)}; {words}"]
    return stats


def distinct_series(table: LabelTable) -> LabelTable:
    """The first of each label set."""
    _, first = np.unique(table.dedup_ids(), return_index=True)
    return table.take(np.sort(first).astype(np.int64))
