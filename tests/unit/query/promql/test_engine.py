"""The engine's own promises: limits, deadlines, cancellation, result shapes, one plan a leaf."""

import json
import threading

import pytest

from fakes.memory_reader import MemoryReader
from sluiceway.clock import ManualClock
from sluiceway.errors import Cancelled, DeadlineExceeded, TenantFault
from sluiceway.kernels import CancelToken
from sluiceway.query.promql.engine import Engine, EngineLimits
from sluiceway.query.promql.faults import ExecutionFault, InvalidQuery
from sluiceway.query.promql.parser import ParserLimits


@pytest.fixture
def reader() -> MemoryReader:
    found = MemoryReader()
    for time_ms in range(0, 600_001, 15_000):
        found.add({"__name__": "a_total", "job": "x"}, time_ms, time_ms / 1000)
        found.add({"__name__": "a_total", "job": "y"}, time_ms, time_ms / 500)
    return found


def test_results_write_prometheus_json(reader: MemoryReader) -> None:
    engine = Engine(reader)
    vector = json.loads(engine.query_instant("default", "sum(a_total)", 60_500).data_bytes())
    assert vector == {
        "resultType": "vector",
        "result": [{"metric": {}, "value": [60.5, "180"]}],
    }
    matrix = json.loads(
        engine.query_range("default", 'a_total{job="x"}', 0, 30_000, 15_000).data_bytes()
    )
    assert matrix["result"] == [
        {
            "metric": {"__name__": "a_total", "job": "x"},
            "values": [[0, "0"], [15, "15"], [30, "30"]],
        }
    ]
    scalar = json.loads(engine.query_instant("default", "1+1", 4_000).data_bytes())
    assert scalar == {"resultType": "scalar", "result": [4, "2"]}
    string = json.loads(engine.query_instant("default", '"é\\n"', 4_000).data_bytes())
    assert string == {"resultType": "string", "result": [4, "é\n"]}
    raw = json.loads(engine.query_instant("default", "a_total[30s]", 60_000).data_bytes())
    assert raw["resultType"] == "matrix"
    assert raw["result"][0]["values"] == [[45, "45"], [60, "60"]]
    cut = engine.query_instant("default", "a_total[30s]", 60_000)
    assert cut.cut(1) and not cut.cut(1)
    assert json.loads(cut.data_bytes())["result"] == raw["result"][:1]
    empty = json.loads(engine.query_range("default", "nothing", 0, 1000, 1000).data_bytes())
    assert empty == {"resultType": "matrix", "result": []}


def test_range_queries_refuse_range_vectors(reader: MemoryReader) -> None:
    with pytest.raises(InvalidQuery, match="must be Scalar or instant Vector"):
        Engine(reader).query_range("default", "a_total[5m]", 0, 1000, 1000)


def test_aggregations_go_to_the_shard(reader: MemoryReader) -> None:
    engine = Engine(reader)
    engine.query_range("default", "sum by (job) (rate(a_total[5m]))", 0, 60_000, 15_000)
    plan = reader.plans[-1]
    assert plan["aggregate"] == {"op": "sum", "by": ["job"]}
    assert (plan["function"], plan["range_ms"]) == ("rate", 300_000)
    engine.query_range("default", "topk(1, a_total)", 0, 60_000, 15_000)
    assert reader.plans[-1]["aggregate"] is None


def test_equal_leaves_are_read_once(reader: MemoryReader) -> None:
    Engine(reader).query_range("default", "a_total / a_total + a_total", 0, 60_000, 15_000)
    assert len(reader.plans) == 1


def test_what_never_changes_is_read_at_one_step(reader: MemoryReader) -> None:
    Engine(reader).query_range("default", "a_total - sum(a_total @ 60)", 0, 60_000, 15_000)
    assert [plan["start_ms"] == plan["end_ms"] for plan in reader.plans] == [False, True]


def test_limits_are_named(reader: MemoryReader) -> None:
    engine = Engine(reader, EngineLimits(steps_max=10))
    with pytest.raises(ExecutionFault, match="steps_max 10"):
        engine.query_range("default", "a_total", 0, 1_000_000, 1_000)
    with pytest.raises(ExecutionFault, match="steps_max 10"):
        engine.query_instant("default", "sum_over_time(a_total[1h:1s])", 600_000)


def test_deadline_and_cancellation(reader: MemoryReader) -> None:
    clock = ManualClock()
    engine = Engine(reader, clock=clock)
    clock.advance(2_000)
    with pytest.raises(DeadlineExceeded):
        engine.query_instant("default", "a_total", 0, deadline_s=1.0)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        engine.query_instant("default", "a_total", 0, cancel=token)
    engine.query_instant("default", "a_total", 0, deadline_s=5.0)
    assert reader.plans[-1]["timeout_ms"] == 3_000


def test_deepest_allowed_nesting_is_answered(reader: MemoryReader) -> None:
    deep = ParserLimits().nesting_max - 3
    texts = [
        "abs(" * deep + "a_total" + ")" * deep,
        "sum(" * deep + "a_total" + ")" * deep,
        "(" * deep + "a_total" + ")" * deep,
        "-" * (deep // 2) + "a_total",
        "a_total + (" * (deep // 2) + "a_total" + ")" * (deep // 2),
        "2" + "^1" * (deep - 2),
        "max_over_time(" * (deep // 2) + "a_total" + "[1m:1m])" * (deep // 2),
        "a_total" + " + a_total" * 3_900,
    ]
    failures: list[str] = []

    def ask() -> None:
        for text in texts:
            try:
                Engine(reader).query_instant("default", text, 600_000)
            except TenantFault as fault:
                failures.append(f"{text[:30]}: {fault.message}")

    # As in the server: on a thread of its own.
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert failures == []


def test_engine_is_shared_by_threads(reader: MemoryReader) -> None:
    engine = Engine(reader)
    answers: list[bytes] = []

    def ask() -> None:
        for _ in range(20):
            result = engine.query_range("default", "sum(a_total) * 2", 0, 60_000, 15_000)
            answers.append(result.data_bytes())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1
    assert len(answers) == 80


@pytest.mark.parametrize("at", ["9223372036854775", "-9223372036854775", "1e15"])
def test_times_beyond_every_point_are_empty(reader: MemoryReader, at: str) -> None:
    engine = Engine(reader)
    for text in (
        f"a_total @ {at}",
        f"rate(a_total[5m] @ {at})",
        f"sum_over_time(a_total[1h:1m] @ {at})",
    ):
        result = json.loads(engine.query_instant("default", text, 60_000).data_bytes())
        assert result["result"] == []
