"""Several shards answer as one that holds all their series would; what is missing is told."""

import itertools
import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sluiceway.clock import SystemClock
from sluiceway.errors import BackendUnavailable, DeadlineExceeded, TenantFault
from sluiceway.kernels import CancelToken, EvaluateServer, LabelTable, MemoryShard, ShardClient
from sluiceway.query import merged
from sluiceway.query.promql.engine import Engine
from sluiceway.query.sharded import Member, ShardedReader, once

STEP_MS, STEPS, SHARDS = 15_000, 80, 3
STALE = float(np.uint64(0x7FF0000000000002).view(np.float64))
"""Prometheus' mark of a series' end."""
END_MS = STEP_MS * STEPS
QUERIES = (
    "m",
    "count(m)",
    "sum by (job) (m)",
    "avg by (job) (m)",
    "min without (pod) (m)",
    "max(m)",
    "group by (pod) (m)",
    "stddev by (job) (m)",
    "quantile by (job) (0.9, m)",
    "topk(3, m)",
    "sum by (job) (rate(c[1m]))",
    "increase(c[2m])",
    "sum(max_over_time(m[1m:30s]))",
    "m + on (pod, job) c",
    "sum by (job) (m) / on (job) count by (job) (m)",
    "absent(m{job='none'})",
    "sum(nothing)",
    "count_values('v', m)",
    "label_replace(m, 'x', '$1', 'pod', 'p(.*)')",
    "m offset 2m",
    "count(m @ 600)",
    "max_over_time(sum(m)[2m:15s])",
    "absent(m)",
    "absent_over_time(nothing[1m])",
    "sum by (__name__) ({__name__=~'m|c'})",
    "sum by (job) (n)",
    "min by (job) (n)",
    "max(n)",
    "count(n)",
)


def corpus(seed: int) -> list[tuple[dict[str, str], list[int], list[float]]]:
    pick = random.Random(seed)
    found = []
    for name, job, pod in itertools.product("mc", ("a", "b", "c"), range(5)):
        times = [t * STEP_MS for t in range(STEPS) if pick.random() > 0.2]
        values = [float(pick.randrange(1000)) for _ in times]
        if name == "c":
            values = [float(v) for v in np.cumsum(values)]
        found.append(({"__name__": name, "job": job, "pod": f"p{pod}"}, times, values))
    odd = [math.nan, STALE, math.inf, -math.inf, -0.0, 7.0]
    for job, pod in itertools.product("ab", range(5)):
        times = [t * STEP_MS for t in range(STEPS)]
        values = [pick.choice(odd) for _ in times]
        found.append(({"__name__": "n", "job": job, "pod": f"p{pod}"}, times, values))
    return found


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Any]:
    """Serve lists of series as shards; their readers."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def serve(series: list[Any]) -> ShardClient:
            path = str(tmp_path / f"{next(numbers)}.sock")
            server = EvaluateServer(MemoryShard(series), path)
            server.start()
            stack.callback(server.stop)
            return ShardClient(path)

        yield serve


def sharded(readers: list[ShardClient], **more: Any) -> ShardedReader:
    members = [Member(str(number), reader) for number, reader in enumerate(readers)]
    return ShardedReader(lambda: members, 4, **more)


def answered(reader: Any, text: str, instant: bool) -> Any:
    engine = Engine(reader, clock=SystemClock())
    deadline_s = SystemClock().monotonic_s() + 20
    ask = ("default", text)
    cancel = CancelToken()
    if instant:
        result = engine.query_instant(*ask, END_MS, deadline_s, cancel)
    else:
        result = engine.query_range(*ask, 60_000, END_MS, 30_000, deadline_s, cancel)
    told = json.loads(result.data_bytes())["result"]
    return sorted(told, key=lambda row: json.dumps(row["metric"], sort_keys=True)), result.warnings


def about(rows: list[Any], expected: list[Any]) -> bool:
    """Equal but for the last digits of values."""

    def texts(found: list[Any]) -> list[float]:
        pairs = [pair for row in found for pair in row.get("values", [row.get("value")])]
        return [float(text) for _, text in pairs]

    same = [row["metric"] for row in rows] == [row["metric"] for row in expected]
    return same and texts(rows) == pytest.approx(texts(expected), 1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_answers_are_those_of_one_shard(serving: Any, fused: bool) -> None:
    every = corpus(1)
    one = serving(every)
    parts: list[list[Any]] = [[] for _ in range(SHARDS)]
    for row in every:
        parts[random.Random(str(row[0])).randrange(SHARDS)].append(row)
    since_ms = -(1 << 62) if fused else 1 << 62
    many = sharded([serving(part) for part in parts], disjoint_from_ms=lambda: since_ms)
    for text, instant in itertools.product(QUERIES, (True, False)):
        if "topk" in text and not instant:
            continue  # ties are broken by the order of series
        (rows, warnings), (expected, of_one) = (answered(r, text, instant) for r in (many, one))
        assert warnings == of_one == []
        # Running means hang on the order of series; a shard's sum of rates is rounded by itself.
        if "stddev" in text or (fused and "rate" in text):
            assert about(rows, expected), text
        else:
            assert rows == expected, text


def test_points_and_faults_are_those_of_one_shard(serving: Any) -> None:
    every = corpus(6)
    one, many = serving(every), sharded([serving(every[::2]), serving(every[1::2])])
    assert answered(many, "m[1m]", True) == answered(one, "m[1m]", True)
    for reader in (one, many):
        with pytest.raises(TenantFault, match="same labelset"):
            answered(reader, "rate({__name__=~'m|c'}[1m])", True)


def test_lists_are_those_of_one_shard(serving: Any) -> None:
    every = corpus(2)
    one, many = serving(every), sharded([serving(every[:7]), serving(every[7:]), serving([])])
    span = {"tenant": "default", "matchers": [], "start_ms": 0, "end_ms": END_MS}
    assert many.label_names(span) == one.label_names(span)
    assert many.label_values({**span, "name": "pod"}) == one.label_values({**span, "name": "pod"})

    def labels(table: LabelTable) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True) for row in table.to_list())

    limits = {"series_max": 1_000}
    asked = {**span, "limits": limits}
    assert labels(many.series(asked)) == labels(one.series(asked))
    points = {**asked, "points_max": 10_000}
    assert sorted(many.points(points).times_ms) == sorted(one.points(points).times_ms)
    assert many.points(points).offsets[-1] == len(many.points(points).values)
    with pytest.raises(TenantFault, match="over all shards"):
        many.series({**span, "limits": {"series_max": len(every) - 1}})


def test_limits_hold_for_all_together(serving: Any) -> None:
    every = corpus(3)
    many = sharded([serving(every[::2]), serving(every[1::2])])
    engine_plan = {
        "tenant": "default",
        "matchers": [{"name": "__name__", "op": "=", "value": "m"}],
        "start_ms": END_MS,
        "end_ms": END_MS,
        "step_ms": 0,
        "offset_ms": 0,
        "at_ms": None,
        "function": "last",
        "range_ms": None,
        "lookback_ms": 300_000,
        "args": [],
        "extension": None,
        "aggregate": None,
        "limits": {"series_max": 10},
    }
    with pytest.raises(TenantFault, match="over all shards: 15, the limit is 10") as fault:
        many.evaluate(engine_plan)
    assert fault.value.id == "sluiceway-query-series-limit"
    engine_plan["limits"] = {"series_max": 15}
    assert len(many.evaluate(engine_plan).labels) == 15


def test_a_missing_shard_is_told(serving: Any, tmp_path: Path) -> None:
    every = corpus(4)
    gone = ShardClient(str(tmp_path / "gone.sock"))
    many = sharded([serving(every[:10]), gone])
    rows, warnings = answered(many, "count(m)", True)
    assert rows[0]["value"][1] == "10"
    assert len(warnings) == 1
    assert warnings[0].startswith("partial: shard 1, one of 2, does not answer")
    span = {"tenant": "default", "matchers": [], "start_ms": 0, "end_ms": END_MS}
    said: list[str] = []
    assert many.label_names(span, None, said)
    assert "partial" in said[0]
    with pytest.raises(BackendUnavailable, match="partial"):
        many.ledger({"tenant": "default"})
    with pytest.raises(BackendUnavailable, match="does not answer"):
        sharded([gone]).label_names(span)
    with pytest.raises(BackendUnavailable, match="no shard"):
        sharded([]).label_names(span)


@pytest.mark.parametrize("place", [0, 1])
def test_a_late_shard_does_not_hold_a_query_past_its_deadline(serving: Any, place: int) -> None:
    over = threading.Event()

    class Late:
        def evaluate(self, plan: Any, cancel: Any = None) -> Any:
            over.wait(20)
            raise DeadlineExceeded("the shard is late")

    readers: list[Any] = [serving(corpus(4))]
    readers.insert(place, Late())
    engine, clock = Engine(sharded(readers), clock=SystemClock()), SystemClock()
    began_s = clock.monotonic_s()
    with pytest.raises(DeadlineExceeded, match=f"shard {place}"):
        engine.query_instant("default", "m", END_MS, began_s + 0.3, CancelToken())
    assert clock.monotonic_s() - began_s < 5
    over.set()


def test_what_one_shard_says_of_the_question_holds(serving: Any) -> None:
    many = sharded([serving(corpus(5)), serving([])])
    with pytest.raises(TenantFault):
        answered(many, 'm{pod=~"("}', True)


def test_a_series_in_two_shards_counts_once() -> None:
    labels = LabelTable.from_lists([{"a": "1"}, {"a": "2"}, {"a": "1"}])
    values = np.array([[1.0, 2.0, 0.0], [5.0, 5.0, 5.0], [0.0, 7.0, 8.0]])
    present = np.array([[True, True, False], [True] * 3, [False, True, True]])
    told = once(merged.MergedColumns(labels, values, present, {}, []))
    assert told.labels.to_list() == [{"a": "1"}, {"a": "2"}]
    assert told.values.tolist() == [[1.0, 7.0, 8.0], [5.0] * 3]
    assert told.present.all()
    assert "1 series stand in two shards" in told.warnings[0]


def test_a_series_that_changed_hands_is_added_up_once(serving: Any) -> None:
    """Ten points in the old shard, then ten in the new one, one of which both have."""

    def half(start: int, end: int) -> list[Any]:
        times = [t * STEP_MS for t in range(start, end)]
        return [({"__name__": "m", "pod": "p"}, times, [float(t) for t in range(start, end)])]

    readers = [serving(half(60, 71)), serving(half(70, STEPS + 1))]
    moved_ms = 70 * STEP_MS
    many = sharded(readers, disjoint_from_ms=lambda: moved_ms)
    # Without knowing it, both shards' sums count while both windows hold points.
    assert (
        answered(sharded(readers), "sum(count_over_time(m[10m]))", True)[0][0]["value"][1] == "22"
    )
    assert answered(sharded(readers), "count(m)", True)[0][0]["value"][1] == "2"
    rows, warnings = answered(many, "count(m)", True)
    assert rows[0]["value"][1] == "1"
    assert "stand in two shards" in warnings[0]
    rows, warnings = answered(many, "m[1h]", True)
    assert [float(value) for _, value in rows[0]["values"]] == [float(t) for t in range(60, 81)]
    assert len(rows) == 1
    assert "stand in two shards" in warnings[0]


def test_families_come_together() -> None:
    gauge, counter = {"type": "gauge", "help": "", "unit": ""}, {"type": "counter"}
    parts = [{"b": [gauge]}, {"a": [gauge], "b": [gauge, counter]}]
    assert merged.families_together(parts, None) == {"b": [gauge, counter], "a": [gauge]}
    assert merged.families_together(parts, 1) == {"a": [gauge]}


def test_figures_come_together() -> None:
    one = {"n": 1, "balanced": True, "t": {"a": {"x": 1}}, "l": [1], "name": "s"}
    two = {"n": 2, "balanced": False, "t": {"a": {"x": 2}, "b": {"x": 5}}, "l": [2], "name": "s"}
    assert merged.added([one, two]) == {
        "n": 3,
        "balanced": False,
        "t": {"a": {"x": 3}, "b": {"x": 5}},
        "l": [1, 2],
        "name": "s",
    }
    assert merged.ranked([[["a", 1], ["b", 5]], [["a", 2]]], 1) == [["b", 5]]
    assert merged.ranked([[["a", 1]], [["a", 2]]], 5, most=True) == [["a", 2]]
    rows = [{"metric": "a", "active": 1, "new": 1}], [{"metric": "a", "active": 2, "new": 0}]
    assert merged.keyed(rows, "metric") == [{"metric": "a", "active": 3, "new": 1}]
