"""A shard reader over series held in memory: the oracle that the engine's tests ask.

Windows are computed by the kernels, one series at a time; matching is Python's `re`. Slow and
plain on purpose.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sluiceway.clock import SystemClock
from sluiceway.kernels import CancelToken, LabelTable, range_function
from sluiceway.query.interface import Floats, Times
from sluiceway.query.promql import aggregations
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.faults import ExecutionFault
from sluiceway.query.promql.values import Grid, Vector

STALE = np.array([0x7FF0000000000002], dtype=np.uint64).view(np.float64)[0]
BOUNDS = Bounds(1 << 40, 1 << 40, SystemClock())
_STALE_BITS = 0x7FF0000000000002


@dataclass
class MemoryColumns:
    labels: LabelTable
    values: Floats
    present: Any
    stats: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass
class MemoryPoints:
    labels: LabelTable
    offsets: Times
    times_ms: Times
    values: Floats
    stats: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


class MemoryReader:
    """Series as (labels, {time_ms: value}); `histograms` are label sets that must not be asked."""

    def __init__(self) -> None:
        self.series: dict[tuple[tuple[str, str], ...], dict[int, float]] = {}
        self.histograms: dict[tuple[tuple[str, str], ...], set[int]] = {}
        self.plans: list[dict[str, Any]] = []

    def add(self, labels: dict[str, str], time_ms: int, value: float) -> None:
        key = tuple(sorted((name, text) for name, text in labels.items() if text))
        self.series.setdefault(key, {})[time_ms] = value

    def add_histogram(self, labels: dict[str, str], time_ms: int) -> None:
        key = tuple(sorted((name, text) for name, text in labels.items() if text))
        self.histograms.setdefault(key, set()).add(time_ms)

    def evaluate(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> MemoryColumns:
        self.plans.append(plan)
        count = 1
        if plan["step_ms"]:
            count = (plan["end_ms"] - plan["start_ms"]) // plan["step_ms"] + 1
        grid = Grid(plan["start_ms"], plan["step_ms"], count)
        times = grid.times_ms()
        at_ms = plan["at_ms"]
        ends = (times if at_ms is None else np.full(count, at_ms)) - plan["offset_ms"]
        function = plan["function"]
        instant = function in ("last", "timestamp")
        range_ms = plan["lookback_ms"] if instant else plan["range_ms"]
        reach = plan["lookback_ms"] if plan["extension"] else 0
        args = [
            np.array(value, dtype=np.float64) if isinstance(value, list) else float(value)
            for value in plan["args"]
        ]
        from_ms, until_ms = int(ends[0]) - range_ms - reach + 1, int(ends[-1]) + reach + 1
        self._refuse_histograms(plan, from_ms, until_ms)
        labels, columns, presence = [], [], []
        for key in self._select(plan["matchers"]):
            points = sorted(
                (time, value)
                for time, value in self.series[key].items()
                if from_ms <= time < until_ms
            )
            if not points:
                continue
            stamps = np.array([time for time, _ in points], dtype=np.int64)
            values = np.array([value for _, value in points])
            if not instant or plan["extension"]:
                fresh = values.view(np.uint64) != _STALE_BITS
                stamps, values = stamps[fresh], values[fresh]
            out, here = range_function(
                function,
                stamps,
                values[None, :],
                np.ones((1, len(values)), dtype=bool),
                times,
                range_ms,
                args,
                end_times_ms=ends,
                extension=plan["extension"],
                lookback_ms=plan["lookback_ms"],
            )
            labels.append(dict(key))
            columns.append(out[0])
            presence.append(here[0])
        table = LabelTable.from_lists(labels)
        vector = Vector(
            table,
            np.array(columns).reshape(len(labels), count),
            np.array(presence, dtype=bool).reshape(len(labels), count),
            np.zeros(len(labels), dtype=bool),
        )
        aggregate = plan["aggregate"]
        if aggregate is not None:
            without = "without" in aggregate
            names = aggregate["without" if without else "by"]
            with np.errstate(all="ignore"):
                vector = aggregations.aggregate(
                    aggregate["op"], vector, names, without, None, BOUNDS
                )
        return MemoryColumns(vector.labels, vector.values, vector.present)

    def points(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> MemoryPoints:
        labels, times, values, offsets = [], [], [], [0]
        for key in self._select(plan["matchers"]):
            points = [
                (time, value)
                for time, value in sorted(self.series[key].items())
                if plan["start_ms"] < time <= plan["end_ms"]
                and np.float64(value).view(np.uint64) != _STALE_BITS
            ]
            labels.append(dict(key))
            times += [time for time, _ in points]
            values += [value for _, value in points]
            offsets.append(len(times))
        return MemoryPoints(
            LabelTable.from_lists(labels),
            np.array(offsets, dtype=np.int64),
            np.array(times, dtype=np.int64),
            np.array(values, dtype=np.float64),
        )

    def _select(self, matchers: list[dict[str, str]]) -> list[tuple[tuple[str, str], ...]]:
        tests = [_compile(matcher) for matcher in matchers]
        return [
            key for key in self.series if all(test(dict(key).get(name, "")) for name, test in tests)
        ]

    def _refuse_histograms(self, plan: dict[str, Any], from_ms: int, until_ms: int) -> None:
        tests = [_compile(matcher) for matcher in plan["matchers"]]
        for key, times in self.histograms.items():
            if all(test(dict(key).get(name, "")) for name, test in tests) and any(
                from_ms <= time < until_ms for time in times
            ):
                raise ExecutionFault("native histograms", "sluiceway-query-native-histogram")


def _compile(matcher: dict[str, str]) -> tuple[str, Any]:
    name, operator, value = matcher["name"], matcher["op"], matcher["value"]
    if operator == "=":
        return name, lambda text: text == value
    if operator == "!=":
        return name, lambda text: text != value
    # RE2 allows flags anywhere in a group; Python only at its start.
    pattern = re.compile(re.sub(r"\(\?i\)([^()]*)", r"(?i:\1)", value), re.DOTALL)
    if operator == "=~":
        return name, lambda text: pattern.fullmatch(text) is not None
    return name, lambda text: pattern.fullmatch(text) is None
