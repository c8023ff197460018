"""Folding through the real server: past the budget, out by PromQL, the same after `kill -9`."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.keyed import Keyed
from fakes.server import remote_write

REACH_S_MAX = 10.0
KNOWN, FOLDED, TICKS, TICK_S = 3, 4, 12, 0.25
POLICY = b"""
stage: enforce
budgets:
  - name: request-ids
    metric: requests_total
    active_series: {hard: 3}
    action: strip
    drop_labels: [i]
    fold: {grid_ms: 1000, lateness_ms: 1000}
"""
OUTPUT = 'requests_total{folded_by="request-ids"}'


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path / "data")
    keyed.server.start()
    yield keyed
    keyed.server.__exit__()


def push(keyed: Keyed, key: str, values: dict[str, float], metric: str = "requests_total") -> None:
    now_ms = int(time.time() * 1000)
    series = [
        ({"__name__": metric, "i": i, "job": "shop"}, [(now_ms, value)])
        for i, value in values.items()
    ]
    assert keyed.call(key, "POST", "/api/v1/write", remote_write(series))[0] == 204


def asked(keyed: Keyed, key: str, query: str) -> list[Any]:
    status, body = keyed.get(key, "query", query=query, time=time.time())
    told = json.loads(body)
    assert status == 200, told
    return list(told["data"]["result"])


def ledger(keyed: Keyed, received: int) -> dict[str, Any]:
    deadline_s = time.monotonic() + REACH_S_MAX
    while True:
        told = json.loads(keyed.get(keyed.root, "ledger", raw_scan=1)[1])["data"]
        row = told["tenants"].get("acme", {})
        if row.get("received") == received:
            assert told["balanced"]
            return dict(row)
        assert time.monotonic() < deadline_s, row
        time.sleep(0.05)


def test_what_is_past_the_budget_is_folded_and_survives_a_kill(keyed: Keyed) -> None:
    key = keyed.tenant("acme")
    made = keyed.call(keyed.root, "POST", "/admin/v1/policies", POLICY)
    assert made[0] == 201, made
    deadline_s = time.monotonic() + REACH_S_MAX
    while keyed.metric("sluiceway_policy_version") != 1:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    for tick in range(TICKS):
        # Input i grows by i + 1; half way the last one begins anew.
        values = {str(i): tick * (i + 1.0) for i in range(KNOWN + FOLDED)}
        if tick >= TICKS // 2:
            values["6"] = (tick - TICKS // 2) * 7.0
        push(keyed, key, values)
        if tick == TICKS // 2:
            keyed.call(keyed.root, "POST", "/admin/v1/flush")
        time.sleep(TICK_S)
    # The journal's time passes the last window's end and the lateness.
    time.sleep(2.2)
    push(keyed, key, {"0": 1.0}, "another_metric")
    received = TICKS * (KNOWN + FOLDED) + 1
    before = ledger(keyed, received)
    assert (before["stored"], before["folded"]) == (TICKS * KNOWN + 1, TICKS * FOLDED)
    assert before["dead_lettered"] == before["discarded"] == 0

    (total,) = asked(keyed, key, f"last_over_time({OUTPUT}[1m])")
    named = {"__name__": "requests_total", "job": "shop"}
    assert total["metric"] == {**named, "folded_by": "request-ids"}
    increase = (TICKS - 1) * (4 + 5 + 6) + (TICKS - 2) * 7
    assert float(total["value"][1]) == increase
    (points,) = asked(keyed, key, f"{OUTPUT}[1m]")
    assert len(points["values"]) == before["emitted"] >= TICKS * TICK_S
    assert points["values"][0][1] == "0"
    assert all(time_s == int(time_s) for time_s, _ in points["values"])
    assert len(asked(keyed, key, "last_over_time(requests_total[1m])")) == KNOWN + 1

    keyed.server.kill()
    keyed.server.start()
    assert ledger(keyed, received) == before
    assert asked(keyed, key, f"{OUTPUT}[1m]") == [points]
    told = keyed.admin("GET", "/budgets")["budgets"]
    assert [row["folded"] for row in told if row["tenant"] == "acme"] == [TICKS * FOLDED]
