"""States over the socket: what two peers hold of the same steps, merged, is what one that holds
everything evaluates."""

import math
import random
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sluiceway.errors import TenantFault
from sluiceway.kernels import EvaluateServer, MemoryShard, ShardClient, merge_states

STALE = float(np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0])
FUNCTIONS = [
    "last", "timestamp", "rate", "increase", "delta", "sum_over_time", "avg_over_time",
    "min_over_time", "max_over_time", "count_over_time", "last_over_time", "first_over_time",
    "present_over_time", "absent_over_time", "ts_of_last_over_time", "ts_of_first_over_time",
]  # fmt: skip
Points = list[tuple[int, float]]


class Peers:
    """Shards in memory behind sockets."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()
        self._servers: list[EvaluateServer] = []

    def client(self, histories: dict[str, Points]) -> ShardClient:
        series = [
            ({"__name__": "m", "i": name, "odd": str(int(name) % 2)}, *zip(*points, strict=True))
            for name, points in histories.items()
            if points
        ]
        path = self._folder / str(next(self._numbers))
        server = EvaluateServer(MemoryShard(series), path, {"query_threads": 1})
        server.start()
        self._servers.append(server)
        return ShardClient(path)

    def stop(self) -> None:
        for server in self._servers:
            server.stop()


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    peers = Peers(tmp_path)
    yield peers
    peers.stop()


def history(dice: random.Random) -> Points:
    time_ms, value, points = dice.randrange(200_000), 0.0, []
    while time_ms < 1_800_000:
        value = 0.0 if dice.random() < 0.05 else value + dice.randrange(9)
        odd = dice.choice([STALE, math.nan, -3.0]) if dice.random() < 0.06 else value
        points.append((time_ms, odd))
        time_ms += 400_000 if dice.random() < 0.02 else dice.choice([10_000, 15_000, 14_999])
    return points


def plan(function: str, **more: Any) -> dict[str, Any]:
    asked = {
        "matchers": [{"name": "__name__", "op": "=", "value": "m"}],
        "start_ms": 600_000, "end_ms": 1_800_000, "step_ms": 47_000,
        "function": function, "offset_ms": 1_000,
    }  # fmt: skip
    if function not in ("last", "timestamp"):
        asked["range_ms"] = 700_000
    return asked | more


@pytest.mark.parametrize("function", FUNCTIONS)
def test_states_of_two_peers_are_the_answer_of_one(peers: Peers, function: str) -> None:
    dice = random.Random(function)
    histories = {str(i): history(dice) for i in range(20)}
    # Some series are in one of the parts only.
    histories["3"] = [(t, v) for t, v in histories["3"] if t <= 900_000]
    histories["4"] = [(t, v) for t, v in histories["4"] if t > 900_000]
    seam_ms = 900_000
    older = {name: [p for p in points if p[0] <= seam_ms] for name, points in histories.items()}
    everything, before = peers.client(histories), peers.client(older)
    parts = [
        before.states(plan(function)),
        everything.states(plan(function, from_ms=seam_ms)),
    ]
    assert [part.exactness for part in parts] == ["exact", "exact"]
    for aggregate in (None, {"op": "count", "by": ["odd"]}, {"op": "max", "without": ["i"]}):
        asked = plan(function, aggregate=aggregate)
        got, want = merge_states(asked, parts), everything.evaluate(asked)
        # The order of series is the parts'.
        names = [str(labels) for labels in got.labels.to_list()]
        order = [names.index(str(labels)) for labels in want.labels.to_list()]
        assert sorted(order) == list(range(len(names)))
        np.testing.assert_array_equal(got.present[order], want.present)
        np.testing.assert_array_equal(got.values[order][want.present], want.values[want.present])


def test_what_has_no_states_is_refused(peers: Peers) -> None:
    client = peers.client({"0": [(1, 1.0)]})
    refused = (
        plan("deriv"),
        plan("rate", aggregate={"op": "sum"}),
        plan("last", extension="smoothed"),
    )
    for bad in refused:
        with pytest.raises(TenantFault, match="states"):
            client.states(bad)
    with pytest.raises(TenantFault, match="from_ms"):
        client.evaluate(plan("rate", from_ms=1))
    with pytest.raises(TenantFault, match="fit"):
        merge_states(plan("rate", end_ms=600_000), [client.states(plan("rate"))])


def test_a_part_without_series_is_a_part(peers: Peers) -> None:
    client = peers.client({"0": [(700_000, 1.0)]})
    empty = client.states(plan("count_over_time", from_ms=700_000))
    assert len(empty) == 0
    full = client.states(plan("count_over_time", from_ms=699_999))
    assert full.labels.to_list() == [{"__name__": "m", "i": "0", "odd": "0"}]
    answer = merge_states(plan("count_over_time"), [empty, full])
    assert answer.present.any()
    assert full.stats["points_scanned"] == 1
