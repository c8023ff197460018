"""An oracle of folding: all points are kept, and each window is computed by its definition.

Says what docs/formats/policy.md says ("How it is folded") for one budget that refuses every series
of its metrics. Values of a test are whole numbers, so that sums are exact in any order.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from fakes.governance import Labels
from fakes.histograms import Histogram, added
from sluiceway.governance.policy import KEPT, Action, Budget, GaugeFunction

Series = tuple[str, Labels]
"""Tenant and labels, ascending by name."""
Value = float | Histogram
Point = tuple[int, Value]


def output_of(budget: Budget, labels: Labels) -> Labels:
    if budget.action is Action.STRIP:
        kept = {name: value for name, value in labels if name not in budget.drop_labels}
    else:
        kept = {name: value for name, value in labels if name in KEPT or name in budget.keep}
    if budget.action is Action.OVERFLOW:
        assert budget.overflow_label is not None
        kept[budget.overflow_label] = "__overflow__"
    return tuple(sorted({**kept, "folded_by": budget.name}.items()))


def is_counter(labels: Labels) -> bool:
    return dict(labels)["__name__"].endswith(("_total", "_count", "_sum", "_bucket"))


def counts(value: Value) -> bool:
    """Does it add to a counter?"""
    return value.is_finite() if isinstance(value, Histogram) else math.isfinite(value)


def increase(value: Value, before: Value) -> Value:
    if isinstance(value, Histogram):
        assert isinstance(before, Histogram)
        return value.since(before)
    assert not isinstance(before, Histogram)
    return value - before if value >= before else value


def nothing(value: Value) -> Value:
    return value.nothing() if isinstance(value, Histogram) else 0.0


def total(values: list[Value]) -> Value:
    if isinstance(values[0], Histogram):
        return added(value for value in values if isinstance(value, Histogram))
    return sum(value for value in values if not isinstance(value, Histogram))


@dataclass
class Input:
    """One life of a series: from its first point until it is forgotten."""

    seen_ms: int
    points: dict[int, tuple[Value, int]] = field(default_factory=dict)
    """By time: the value, and the end of the window that it counts in."""
    alive: bool = True


@dataclass
class FoldOracle:
    """Folding of one shard, record by record."""

    budget: Budget
    now_ms: int | None = None
    lives: dict[Series, list[Input]] = field(default_factory=lambda: defaultdict(list))
    outputs: dict[str, set[Labels]] = field(default_factory=lambda: defaultdict(set))
    first: dict[Series, Histogram] = field(default_factory=dict)
    """Of each output's native histograms: what others must fit to."""
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    reasons: Counter[str] = field(default_factory=Counter)

    def closed_ms(self) -> int:
        assert self.now_ms is not None
        rules = self.budget.fold
        return (self.now_ms - rules.lateness_ms) // rules.grid_ms * rules.grid_ms

    def end_of(self, time_ms: int) -> int:
        grid_ms = self.budget.fold.grid_ms
        return -(-time_ms // grid_ms) * grid_ms

    def record(self, tenant: str, received_ms: int, rows: list[tuple[Labels, list[Point]]]) -> None:
        before = None if self.now_ms is None else self.closed_ms()
        self.now_ms = max(received_ms, self.now_ms or received_ms)
        if before is not None and self.closed_ms() > before:
            self.forget()
        aimed = [labels for labels, _ in rows if self.aim(tenant, labels)]
        for labels, points in rows:
            self.outcomes[tenant]["received"] += len(points)
            why, left = "fold_full", len(points)
            if labels in aimed:
                why, left = self.offer((tenant, labels), points)
            self.outcomes[tenant]["folded"] += len(points) - left
            self.outcomes[tenant]["dead_lettered"] += left
            self.reasons[why] += left

    def offer(self, series: Series, points: list[Point]) -> tuple[str, int]:
        """Why not all of it was folded, and how many points were not."""
        fitting = [point for point in points if self.fits(series, point[1])]
        strange = len(points) - len(fitting)
        if not fitting or (isinstance(fitting[0][1], Histogram) and self.kin(series) is None):
            why, left = "", 0
        else:
            why, left = self.take(series, fitting)
        return "fold_histogram" if strange else why, strange + left

    def kin(self, series: Series) -> Histogram | None:
        return self.first.get((series[0], output_of(self.budget, series[1])))

    def fits(self, series: Series, value: Value) -> bool:
        if not isinstance(value, Histogram) or value.stale:
            return True
        output = (series[0], output_of(self.budget, series[1]))
        return self.first.setdefault(output, value).fits(value)

    def adds_up(self, series: Series) -> bool:
        kin = self.kin(series)
        return is_counter(series[1]) if kin is None else not kin.is_gauge

    def forget(self) -> None:
        assert self.now_ms is not None
        for lives in self.lives.values():
            for life in lives:
                waits = any(end > self.closed_ms() for _, end in life.points.values())
                idle = life.seen_ms + self.budget.fold.idle_ms <= self.now_ms
                life.alive = life.alive and (waits or not idle)

    def aim(self, tenant: str, labels: Labels) -> bool:
        output = output_of(self.budget, labels)
        known = self.outputs[tenant]
        if output not in known and len(known) >= self.budget.fold.outputs_max:
            return False
        known.add(output)
        return True

    def take(self, series: Series, points: list[Point]) -> tuple[str, int]:
        assert self.now_ms is not None
        lives = self.lives[series]
        if not lives or not lives[-1].alive:
            alive = [
                life
                for (tenant, _), past in self.lives.items()
                for life in past
                if life.alive and tenant == series[0]
            ]
            if len(alive) >= self.budget.fold.inputs_max:
                return "fold_full", len(points)
            lives.append(Input(self.now_ms))
        life = lives[-1]
        life.seen_ms = self.now_ms
        closed = self.closed_ms()
        numbers = life.points.items()
        settled = [(t, v) for t, (v, end) in numbers if end <= closed and counts(v)]
        last = max(settled, key=lambda point: point[0], default=None)
        late = 0
        for time_ms, value in points:
            counts_ms = self.end_of(time_ms)
            if self.adds_up(series):
                if last is not None and time_ms <= last[0]:
                    late += (time_ms, value) != last
                    continue
                counts_ms = max(counts_ms, closed + self.budget.fold.grid_ms)
            elif counts_ms <= closed:
                late += 1
                continue
            life.points[time_ms] = (value, counts_ms)
        return ("fold_late" if late else ""), late

    def emitted(self) -> dict[Series, dict[int, Value]]:
        """All that must have come out so far, by tenant and output."""
        found: dict[Series, dict[int, Value]] = {}
        of_output: dict[Series, list[Input]] = defaultdict(list)
        for (tenant, labels), lives in self.lives.items():
            of_output[tenant, output_of(self.budget, labels)] += lives
        for output, lives in of_output.items():
            kin = self.first.get(output)
            adds_up = is_counter(output[1]) if kin is None else not kin.is_gauge
            made = self.totals(lives) if adds_up else self.gauges(lives)
            if made:
                found[output] = made
        return found

    def totals(self, lives: list[Input]) -> dict[int, Value]:
        increases: dict[int, list[Value]] = defaultdict(list)
        for life in lives:
            numbers = sorted((t, place) for t, place in life.points.items() if counts(place[0]))
            before = None
            for _, (value, end) in numbers:
                more = nothing(value) if before is None else increase(value, before)
                increases[end].append(more)
                before = value
        so_far: list[Value] = []
        totals: dict[int, Value] = {}
        for end in sorted(end for end in increases if end <= self.closed_ms()):
            if not totals:
                totals[end - self.budget.fold.grid_ms] = nothing(total(increases[end]))
            so_far += increases[end]
            totals[end] = total(so_far)
        return totals

    def gauges(self, lives: list[Input]) -> dict[int, Value]:
        windows: dict[int, list[Point]] = defaultdict(list)
        for life in lives:
            last: dict[int, Point] = {}
            for time_ms, (value, end) in sorted(life.points.items()):
                last[end] = (time_ms, value)
            for end, (time_ms, value) in last.items():
                finite = isinstance(value, Histogram) and value.is_finite()
                if finite or (not isinstance(value, Histogram) and not math.isnan(value)):
                    windows[end].append((time_ms, value))
        closed = self.closed_ms()
        return {end: self.value(of) for end, of in windows.items() if end <= closed}

    def value(self, points: list[Point]) -> Value:
        values = [value for _, value in points]
        function = self.budget.fold.gauge
        if function in (GaugeFunction.SUM, GaugeFunction.AVG):
            whole = total(values)
            if function is GaugeFunction.SUM:
                return whole
            by = len(values)
            return whole.divided(by) if isinstance(whole, Histogram) else whole / by
        floats = [value for value in values if not isinstance(value, Histogram)]
        if function is GaugeFunction.LAST or not floats:
            newest = max(points, key=lambda point: point[0])[1]
            return added([newest]) if isinstance(newest, Histogram) else newest
        return max(floats) if function is GaugeFunction.MAX else min(floats)
