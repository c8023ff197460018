"""Random lives of a shard that folds, killed anywhere: outputs, ledger and letters as foretold."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.folding import FoldOracle
from fakes.governance import HOUR_MS, Labels
from fakes.histograms import GAUGE, NO_RESET, RESET, Histogram, alike, read
from fakes.hot import acked, check_ledger, opened
from fakes.remote_write import body
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Selection
from sluiceway.governance.policy import Action, Budget, Fold, GaugeFunction, Limit, Policy, Stage
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.tiers.hot import HotConfig

CONFIG = HotConfig(seal_points_max=40, merge_fan_in=2, state_files_max=3, day_points_min=20)
START_MS = 500_000 * HOUR_MS
TENANTS = ("a", "b")
ACTIONS = ("apply", "freeze", "write", "seal", "merge", "kill")
AGO_MS = [0, 0, 0, 1_000, 3_000, 12_000, 40_000, 100_000, -4_000]

folds = st.builds(
    Fold,
    # The last value of equal times is decided by the series' id: no two inputs share a time here.
    gauge=st.sampled_from(GaugeFunction),
    grid_ms=st.sampled_from([5_000, 10_000, 30_000]),
    lateness_ms=st.sampled_from([0, 7_000, 30_000]),
    idle_ms=st.sampled_from([20_000, 60_000, 600_000]),
    inputs_max=st.sampled_from([3, 100, 100]),
    outputs_max=st.sampled_from([1, 3, 100]),
)
actions = st.sampled_from(
    [
        {"action": Action.STRIP, "drop_labels": ("id",)},
        {"action": Action.STRIP, "drop_labels": ("id", "path", "absent")},
        {"action": Action.AGGREGATE, "keep": ("path",)},
        {"action": Action.AGGREGATE},
        {"action": Action.OVERFLOW, "overflow_label": "path"},
    ]
)
budgets = st.builds(
    lambda fold, action: Budget("ids", active_series=Limit(hard=0), fold=fold, **action),
    folds,
    actions,
)
number = st.integers(0, 20).map(float)
value = st.one_of(number, number, number, number, st.sampled_from([math.nan, math.inf]))
row = st.tuples(
    st.sampled_from(["f_total", "f_bucket", "f_depth"]),
    st.sampled_from(["/", "/x"]),
    st.integers(0, 3),
    st.lists(st.tuples(st.sampled_from(AGO_MS), value), min_size=1, max_size=3),
)
# What a native histogram is beside its place in the history, below.
FLAWS = ["", "", "", "", "double", "stale", "nan", "inf", "fewer", "said", "not", "other"]
histograms = st.tuples(
    st.sampled_from(["h", "h", "h_gauge", "h_custom"]),
    st.sampled_from(["/", "/x"]),
    st.integers(0, 3),
    st.lists(st.tuples(st.sampled_from(AGO_MS), st.sampled_from(FLAWS)), min_size=1, max_size=3),
)


def records_of(row: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(
        st.sampled_from(TENANTS),
        st.lists(row, min_size=1, max_size=6, unique_by=lambda r: r[:3]),
        st.sampled_from([0, 1_000, 4_000, 10_000, 15_000, 31_000, 120_000, -2_000]),
    )


record = records_of(row)
mixed = st.one_of(record, records_of(histograms), records_of(st.one_of(row, histograms)))
step = st.one_of(mixed, mixed, mixed, mixed, st.sampled_from(ACTIONS))

ERA_MS = 60_000
LAYOUTS = [(0, 0.0), (1, 0.001), (2, 0.5), (0, 0.75), (-1, 0.001), (2, 0.3)]


def histogram(metric: str, own: int, time_ms: int, flaw: str) -> Histogram:
    """A series' history: it grows for an era, then begins anew in another layout; after two thirds
    of an era the layout is coarser."""
    era, into_ms = divmod(time_ms + own * 7_000, ERA_MS)
    schema, zero_threshold = LAYOUTS[(era + own) % len(LAYOUTS)]
    positive = {index: float(into_ms // (1_500 * (index + 5))) for index in range(-3, 9, own + 1)}
    negative = {index: float(into_ms // (2_500 * (index + 5))) for index in (-2, 0, 4)}
    zero_count = float(into_ms // 4_000)
    count = zero_count + sum(positive.values()) + sum(negative.values())
    total = float(into_ms // 100)
    made = Histogram(schema, zero_threshold, zero_count, count, total, positive, negative)
    if metric == "h_custom":
        bounds = (1.0, 2.5, 5.0) if flaw != "other" else (1.0, 5.0)
        held = {index: positive.get(index, 0.0) for index in range(3)}
        count = sum(held.values())
        made = Histogram(-53, 0.0, 0.0, count, total, held, {}, bounds)
    elif into_ms > ERA_MS * 2 // 3:
        made = made.brought(schema - 1, zero_threshold * 2)
    changes: dict[str, dict[str, Any]] = {
        "double": {"floats": True},
        "stale": {"stale": True},
        "nan": {"sum": math.nan},
        "inf": {"floats": True, "count": math.inf},
        "fewer": {"floats": True, "positive": {i: c // 2 for i, c in made.positive.items()}},
        "said": {"hint": RESET},
        "not": {"hint": NO_RESET},
        "other": {"hint": GAUGE},
    }
    made = replace(made, **changes.get(flaw, {}))
    return replace(made, hint=GAUGE) if metric == "h_gauge" and flaw != "said" else made


def labels_of(metric: str, path: str, number: int) -> Labels:
    named = {"__name__": metric, "id": str(number), "path": path}
    if metric == "f_bucket":
        named["le"] = "1"
    return tuple(sorted(named.items()))


class Life:
    """A shard and its oracle, driven together."""

    def __init__(self, budget: Budget) -> None:
        self.disk = Disk.memory()
        self.hot = opened(self.disk, CONFIG)
        self.hot.change_policy(Policy(Stage.ENFORCE, (budget,)))
        self.oracle = FoldOracle(budget)
        self.now_ms = START_MS
        self.pushed: list[tuple[str, int, Any]] = []

    def push(self, tenant: str, rows: list[Any], later_ms: int) -> None:
        self.now_ms += later_ms
        sent = []
        for metric, path, number, points in rows:
            own = number + (10 if path == "/x" else 0)
            timed = [(self.now_ms - ago + own, value) for ago, value in points]
            if metric.startswith("h"):
                timed = [(at, histogram(metric, own, at, flaw)) for at, flaw in timed]
            sent.append((labels_of(metric, path, number), timed))
        # One of its own in each record, so that no body is taken for a retry; at its own time.
        number = len(self.pushed)
        marker = (labels_of("f_depth", "/marker", number), [(self.now_ms + 500 + number, 1.0)])
        sent.append(marker)
        ticket = self.hot.shard.receive(
            body([(dict(labels), points) for labels, points in sent]),
            tenant,
            FORMAT_REMOTE_WRITE_1,
            ENCODING_IDENTITY,
            self.now_ms,
        ).ticket
        assert acked(self.hot, ticket)
        self.pushed.append((tenant, self.now_ms, sent))
        self.oracle.record(*self.pushed[-1])

    def do(self, action: str) -> None:
        if action == "apply":
            self.hot.step()
        elif action == "freeze":
            self.hot._worker.ask_seal(0)
            self.hot.step()
        elif action == "write":
            self.hot.seal_step()
        elif action == "seal":
            self.do("freeze")
            self.do("write")
        elif action == "merge":
            self.hot.merge_step()
        else:
            self.hot.shard.close()
            self.hot = opened(self.disk, CONFIG)

    def settle(self) -> None:
        while self.hot.step() == "applied" or self.hot.seal_step():
            pass
        self.do("seal")

    def check(self) -> None:
        expected = self.oracle.emitted()
        found = self.hot.statement().tenants
        for tenant, outcomes in self.oracle.outcomes.items():
            told = {"received": found[tenant].received, **found[tenant].by_outcome()}
            assert {k: v for k, v in told.items() if v} == {k: v for k, v in outcomes.items() if v}
            mine = [len(points) for (of, _), points in expected.items() if of == tenant]
            assert found[tenant].emitted == sum(mine)
        floats = {
            series: points
            for series, points in expected.items()
            if not any(isinstance(value, Histogram) for value in points.values())
        }
        assert emitted(self.hot) == floats
        found_histograms = emitted_histograms(self.hot)
        assert found_histograms.keys() == expected.keys() - floats.keys()
        for series, points in found_histograms.items():
            assert points.keys() == expected[series].keys()
            for time_ms, value in points.items():
                foretold = expected[series][time_ms]
                assert isinstance(foretold, Histogram)
                assert alike(value, foretold), (value, foretold)
        check_increases(found_histograms)
        check_ledger(self.hot)
        letters = EmbeddedDeadLetters(self.disk, self.hot.version)
        page = letters.browse(Selection(), limit=1_000)
        reasons: dict[str, int] = {}
        for letter in page.letters:
            reasons[letter.reason] = (
                reasons.get(letter.reason, 0) + len(letter.floats) + len(letter.histograms)
            )
        assert reasons == {k: v for k, v in self.oracle.reasons.items() if v}


def emitted(hot: Any) -> dict[tuple[str, Labels], dict[int, float]]:
    found: dict[tuple[str, Labels], dict[int, float]] = {}
    for tenant in TENANTS:
        labels, offsets, times, values = hot.shard.points(tenant, -(1 << 62), 1 << 62)
        for place, of_series in enumerate(labels.to_list()):
            mine = slice(offsets[place], offsets[place + 1])
            points = dict(zip(times[mine].tolist(), values[mine].tolist(), strict=True))
            if points:
                found[tenant, tuple(sorted(of_series.items()))] = points
    return found


def emitted_histograms(hot: Any) -> dict[tuple[str, Labels], dict[int, Histogram]]:
    """Of a shard that has sealed all it had."""
    found: dict[tuple[str, Labels], dict[int, Histogram]] = {}
    for tenant in TENANTS:
        labels, points = hot.shard.histograms(tenant)
        series = [tuple(sorted(of_series.items())) for of_series in labels.to_list()]
        for place, time_ms, data in points:
            found.setdefault((tenant, series[place]), {})[time_ms] = read(data)
    return found


def check_increases(found: dict[tuple[str, Labels], dict[int, Histogram]]) -> None:
    """Who reads totals by Prometheus' rules finds no reset in them."""
    for points in found.values():
        totals = [value for _, value in sorted(points.items())]
        for before, value in pairwise(totals):
            if not value.is_gauge:
                grown = value.since(before)
                assert grown.count == value.count - before.count
                assert grown.sum == value.sum - before.sum


def live(life: Life, steps: list[Any]) -> None:
    for action in steps:
        if isinstance(action, str):
            life.do(action)
        else:
            life.push(*action)


@settings(max_examples=200, deadline=None)
@given(budgets, st.lists(step, max_size=40))
def test_any_life_folds_as_the_oracle_does(budget: Budget, steps: list[Any]) -> None:
    life = Life(budget)
    live(life, steps)
    life.settle()
    life.check()
    life.do("kill")
    life.settle()
    life.check()
    # All windows close at last: over the whole history nothing is missing.
    life.push("a", [("f_total", "/", 0, [(0, 1.0)])], 3_000_000)
    life.settle()
    life.check()
    life.hot.shard.close()


@settings(max_examples=100, deadline=None)
@given(budgets, st.lists(step, min_size=3, max_size=30), st.integers(0, 1 << 30))
def test_a_power_cut_anywhere_folds_on_as_the_unbroken_life(
    budget: Budget, steps: list[Any], chance: int
) -> None:
    """The image holds the records up to some number; then it goes on as if nothing had been."""
    life = Life(budget)
    durable = [(life.disk.operation_count(), 0)]
    for action in steps:
        live(life, [action])
        durable.append((life.disk.operation_count(), len(life.pushed)))
    life.hot.shard.close()
    first = durable[0][0]
    cut = first + chance % (durable[-1][0] - first + 1)
    acked_before = max([0, *(count for operation, count in durable if operation <= cut)])
    image = life.disk.crash_image(cut, chance)
    hot = opened(image, CONFIG)
    while hot.step() == "applied" or hot.seal_step():
        pass
    recovered = hot.statement().next_sequence
    assert recovered >= acked_before
    again = FoldOracle(budget)
    for past in life.pushed[:recovered]:
        again.record(*past)
    broken = Life.__new__(Life)
    broken.disk, broken.hot, broken.oracle = image, hot, again
    broken.settle()
    broken.check()
    broken.now_ms, broken.pushed = life.now_ms, life.pushed[:recovered]
    broken.push("b", [("f_total", "/x", 1, [(0, 9.0)])], 200_000)
    broken.settle()
    broken.check()
    hot.shard.close()
