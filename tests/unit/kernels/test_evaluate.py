"""The evaluate protocol end to end: a shard in memory, its server, the client."""

import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sluiceway.errors import (
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    TenantFault,
)
from sluiceway.kernels import CancelToken, EvaluateServer, MemoryShard, ShardClient, range_function

STALE = np.array([0x7FF0000000000002], dtype=np.uint64).view(np.float64)[0]
TIMES = np.arange(0, 600_000, 15_000, dtype=np.int64)
SERIES = 200


def counter(number: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.cumsum(np.random.default_rng(number).integers(0, 9, len(TIMES))).astype(np.float64)


def shard() -> MemoryShard:
    counters = [
        ({"__name__": "c", "i": str(i), "zone": f"z{i % 3}"}, TIMES, counter(i))
        for i in range(SERIES)
    ]
    gauges = [
        ({"__name__": "g"}, [0, 60_000, 120_000], [1.0, 2.0, float(STALE)]),
        ({"__name__": "other", "x": "1"}, [0], [math.nan]),
    ]
    metadata = [("c", 1, "counts", ""), ("g", 2, 'says "no"', "bytes")]
    return MemoryShard([*counters, *gauges], metadata)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "evaluate.sock"


@pytest.fixture
def client(path: Path) -> Iterator[ShardClient]:
    server = EvaluateServer(shard(), path, {"query_bytes_max": 8 << 20})
    server.start()
    yield ShardClient(path)
    server.stop()


def plan(name: str, **fields: Any) -> dict[str, Any]:
    matchers = [{"name": "__name__", "op": "=", "value": name}]
    return {"matchers": matchers, "start_ms": 60_000, "end_ms": 600_000, "step_ms": 30_000} | fields


def test_columns_are_those_of_the_kernel(client: ShardClient) -> None:
    got = client.evaluate(plan("c", function="rate", range_ms=120_000))
    assert len(got.labels) == SERIES and got.stats["series_selected"] == SERIES
    values = np.array([counter(i) for i in range(SERIES)])
    evals = np.arange(60_000, 600_001, 30_000, dtype=np.int64)
    every = np.ones(values.shape, dtype=np.bool_)
    want, present = range_function("rate", TIMES, values, every, evals, 120_000, [])
    order = [int(labels["i"]) for labels in got.labels.to_list()]
    np.testing.assert_array_equal(got.present, present[order])
    np.testing.assert_array_equal(got.values[got.present], want[order][present[order]])


@pytest.mark.parametrize("op", ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"])
@pytest.mark.parametrize("grouping", [{"by": ["zone"]}, {"without": ["i"]}, {}])
def test_aggregations_are_fused(client: ShardClient, op: str, grouping: dict[str, Any]) -> None:
    columns = client.evaluate(plan("c", function="increase", range_ms=120_000))
    got = client.evaluate(
        plan("c", function="increase", range_ms=120_000, aggregate={"op": op} | grouping)
    )
    reduce = {
        "sum": np.sum, "avg": np.mean, "count": len, "min": np.min, "max": np.max,
        "group": lambda v: 1.0, "stddev": np.std, "stdvar": np.var,
    }[op]  # fmt: skip
    zones = np.array([labels["zone"] for labels in columns.labels.to_list()])
    groups = got.labels.to_list()
    assert len(groups) == (3 if grouping else 1)
    for row, labels in enumerate(groups):
        assert set(labels) == ({"zone"} if grouping else set())
        members = zones == labels["zone"] if grouping else np.ones(SERIES, dtype=np.bool_)
        for step in range(got.values.shape[1]):
            inside = columns.values[members & columns.present[:, step], step]
            assert bool(got.present[row, step]) == bool(len(inside))
            if len(inside):
                assert got.values[row, step] == pytest.approx(reduce(inside), rel=1e-12)


def test_threads_do_not_change_a_bit(path: Path) -> None:
    answers = []
    for threads in (1, 2, 5):
        server = EvaluateServer(shard(), path, {"query_threads": threads})
        server.start()
        query = plan("c", function="rate", range_ms=60_000, aggregate={"op": "sum", "by": []})
        answers.append(ShardClient(path).evaluate(query).values.tobytes())
        server.stop()
    assert len(set(answers)) == 1


def test_look_back_ends_at_a_stale_marker(client: ShardClient) -> None:
    got = client.evaluate(plan("g", start_ms=0, end_ms=420_000, step_ms=60_000))
    assert got.present.tolist() == [[True, True] + [False] * 6]
    assert got.values[0, :2].tolist() == [1.0, 2.0]
    lone = client.evaluate(plan("other", start_ms=0, end_ms=299_999, step_ms=299_999))
    assert lone.present.all() and np.isnan(lone.values).all()
    assert len(client.evaluate(plan("other", start_ms=300_000, end_ms=300_000)).labels) == 0
    shifted = plan("g", start_ms=0, end_ms=60_000, step_ms=60_000, at_ms=90_000, offset_ms=30_000)
    assert client.evaluate(shifted | {"function": "timestamp"}).values.tolist() == [[60.0, 60.0]]


def test_arguments_may_differ_by_step(client: ShardClient) -> None:
    steps = {"start_ms": 120_000, "end_ms": 180_000, "step_ms": 60_000, "range_ms": 180_001}
    quantiles = np.array([math.inf, 0.5])
    got = client.evaluate(plan("g", function="quantile_over_time", args=[quantiles], **steps))
    assert got.values.tolist() == [[math.inf, 1.5]]


def test_points_series_and_labels(client: ShardClient) -> None:
    request = {"matchers": plan("g")["matchers"], "start_ms": 0, "end_ms": 120_000}
    points = client.points(request)
    assert points.offsets.tolist() == [0, 1] and points.times_ms.tolist() == [60_000]
    kept = client.points(request | {"keep_stale": True})
    assert kept.values.view(np.uint64)[-1] == 0x7FF0000000000002
    assert client.series(request).to_list() == [{"__name__": "g"}]
    assert client.label_names(request) == ["__name__"]
    assert client.label_values({"name": "zone"}) == ["z0", "z1", "z2"]
    assert client.metadata({})["g"] == [{"type": "gauge", "help": 'says "no"', "unit": "bytes"}]
    assert client.stats({})["series_count"] == SERIES + 2
    assert client.ledger({}) == {}


def test_limits_name_themselves(client: ShardClient) -> None:
    for limits, limit in [
        ({"series_max": 5}, "series"),
        ({"points_max": 100}, "points"),
        ({"bytes_max": 999}, "bytes"),
    ]:
        with pytest.raises(TenantFault) as fault:
            client.evaluate(plan("c", limits=limits))
        assert (fault.value.status, fault.value.id) == (422, f"sluiceway-query-{limit}-limit")
    with pytest.raises(TenantFault):
        client.evaluate(plan("c", function="nonsense", range_ms=5))
    with pytest.raises(TenantFault):
        client.evaluate({"matchers": "nonsense"})
    with pytest.raises(DeadlineExceeded):
        client.evaluate(plan("c", timeout_ms=0))
    assert client.evaluate(plan("g")).labels.to_list() == [{"__name__": "g"}]


def test_a_cancelled_query_ends_and_frees_its_memory(path: Path) -> None:
    times = np.arange(200_000, dtype=np.int64)
    heavy = [({"__name__": "h", "i": str(i)}, times, times.astype(np.float64)) for i in range(20)]
    server = EvaluateServer(MemoryShard(heavy), path, {"query_threads": 1})
    server.start()
    client = ShardClient(path)
    # Far more work than a test may take: 2,000 steps of 200,000 points each, 20 times.
    query = plan("h", start_ms=200_000, end_ms=202_000, step_ms=1, range_ms=200_000)
    query |= {"function": "quantile_over_time", "args": [0.5]}
    token = CancelToken()
    threading.Timer(0.2, token.cancel).start()
    started = time.process_time()
    with pytest.raises(Cancelled):
        client.evaluate(query, token)
    assert time.process_time() - started < 2
    with pytest.raises(Cancelled):
        client.evaluate(query, token)
    server.stop()
    assert server.stats() == {"connections": 0, "query_bytes": 0}


def test_a_restarted_shard_is_found_again(path: Path) -> None:
    client = ShardClient(path)
    with pytest.raises(BackendUnavailable):
        client.evaluate(plan("g"))
    for _ in range(2):
        server = EvaluateServer(shard(), path)
        server.start()
        assert len(client.evaluate(plan("g")).labels) == 1
        server.stop()


def test_a_frame_that_is_none_ends_only_its_connection(client: ShardClient, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(path))
        raw.sendall(b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n")
        raw.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""
    assert len(client.evaluate(plan("g")).labels) == 1


def test_memory_of_all_queries_is_bounded(client: ShardClient) -> None:
    wide = plan("c", start_ms=0, end_ms=600_000, step_ms=100)
    with pytest.raises((TenantFault, Overloaded)):
        client.evaluate(wide)
