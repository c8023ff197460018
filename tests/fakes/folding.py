"""An oracle of folding: all points are kept, and each window is computed by its definition.

Says what docs/formats/policy.md says ("How it is folded") for one budget that refuses every series
of its metrics. Values of a test are whole numbers, so that sums are exact in any order.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from fakes.governance import Labels
from sluiceway.governance.policy import KEPT, Action, Budget, GaugeFunction

Series = tuple[str, Labels]
"""Tenant and labels, ascending by name."""
Point = tuple[int, float]


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


@dataclass
class Input:
    """One life of a series: from its first point until it is forgotten."""

    seen_ms: int
    points: dict[int, tuple[float, int]] = field(default_factory=dict)
    """By time: the value, and the end of the window that it counts in."""
    alive: bool = True


@dataclass
class FoldOracle:
    """Folding of one shard, record by record."""

    budget: Budget
    now_ms: int | None = None
    lives: dict[Series, list[Input]] = field(default_factory=lambda: defaultdict(list))
    outputs: dict[str, set[Labels]] = field(default_factory=lambda: defaultdict(set))
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
            why = self.take((tenant, labels), points) if labels in aimed else "fold_full"
            folded = len(points)
            if why == "fold_full":
                folded = 0
            elif why:
                folded -= int(why)
                why = "fold_late"
            self.outcomes[tenant]["folded"] += folded
            self.outcomes[tenant]["dead_lettered"] += len(points) - folded
            self.reasons[why] += len(points) - folded

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

    def take(self, series: Series, points: list[Point]) -> str:
        """Why not all of it was folded: `fold_full`, or how many were late."""
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
                return "fold_full"
            lives.append(Input(self.now_ms))
        life = lives[-1]
        life.seen_ms = self.now_ms
        closed = self.closed_ms()
        numbers = life.points.items()
        settled = [(t, v) for t, (v, end) in numbers if end <= closed and math.isfinite(v)]
        last = max(settled, default=None)
        late = 0
        for time_ms, value in points:
            counts_ms = self.end_of(time_ms)
            if is_counter(series[1]):
                if last is not None and time_ms <= last[0]:
                    late += (time_ms, value) != last
                    continue
                counts_ms = max(counts_ms, closed + self.budget.fold.grid_ms)
            elif counts_ms <= closed:
                late += 1
                continue
            life.points[time_ms] = (value, counts_ms)
        return str(late) if late else ""

    def emitted(self) -> dict[tuple[str, Labels], dict[int, float]]:
        """All that must have come out so far, by tenant and output."""
        found: dict[tuple[str, Labels], dict[int, float]] = {}
        of_output: dict[tuple[str, Labels], list[Input]] = defaultdict(list)
        for (tenant, labels), lives in self.lives.items():
            of_output[tenant, output_of(self.budget, labels)] += lives
        for output, lives in of_output.items():
            made = self.totals(lives) if is_counter(output[1]) else self.gauges(lives)
            if made:
                found[output] = made
        return found

    def totals(self, lives: list[Input]) -> dict[int, float]:
        increases: dict[int, float] = defaultdict(float)
        for life in lives:
            numbers = sorted((t, v, e) for t, (v, e) in life.points.items() if math.isfinite(v))
            for place, (_, value, end) in enumerate(numbers):
                before = numbers[place - 1][1] if place else value
                increases[end] += value - before if value >= before else value
        total, totals = 0.0, {}
        for end in sorted(end for end in increases if end <= self.closed_ms()):
            if not totals:
                totals[end - self.budget.fold.grid_ms] = 0.0
            total += increases[end]
            totals[end] = total
        return totals

    def gauges(self, lives: list[Input]) -> dict[int, float]:
        windows: dict[int, list[Point]] = defaultdict(list)
        for life in lives:
            last: dict[int, Point] = {}
            for time_ms, (value, end) in sorted(life.points.items()):
                last[end] = (time_ms, value)
            for end, point in last.items():
                if not math.isnan(point[1]):
                    windows[end].append(point)
        closed = self.closed_ms()
        return {end: self.value(of) for end, of in windows.items() if end <= closed}

    def value(self, points: list[Point]) -> float:
        values = [value for _, value in points]
        match self.budget.fold.gauge:
            case GaugeFunction.SUM:
                return sum(values)
            case GaugeFunction.AVG:
                return sum(values) / len(values)
            case GaugeFunction.MAX:
                return max(values)
            case GaugeFunction.MIN:
                return min(values)
            case GaugeFunction.LAST:
                return max(points)[1]
