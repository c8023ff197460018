"""Agents that come back at once after a stall (FAULTS C2): a real server, stopped a while."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.faults import swarm
from tests.faults.server import ServerUnderTest

WITHIN_S = 10
STEADY_FROM_S = 4


def storm(
    tmp_path: Path, agents: int, interval_s: float, steady_s: int, stopped_s: int, after_s: int
) -> swarm.Seen:
    """Steady, stopped, on; then asks for every acked batch."""
    (tmp_path / "data").mkdir()
    with ServerUnderTest(tmp_path / "data") as server:
        assert server.process is not None
        seconds = steady_s + stopped_s + after_s
        plan = swarm.Plan(server.port, agents, seconds, interval_s)
        process = swarm.start(plan)
        time.sleep(steady_s)
        os.kill(server.process.pid, signal.SIGSTOP)
        time.sleep(stopped_s)
        os.kill(server.process.pid, signal.SIGCONT)
        seen = swarm.finish(process, after_s + plan.drain_s_max + 60)
        counts = stored(server, max(seen.sent_batches))
        for number, (acked, sent) in enumerate(
            zip(seen.acked_batches, seen.sent_batches, strict=True)
        ):
            assert acked <= counts.get(number, 0) <= sent, f"agent {number}"
        status, told = server.call("GET", "/api/v1/ledger?raw_scan=1")
        assert status == 200
        ledger = json.loads(told)["data"]
        assert ledger["balanced"], ledger
    return seen


def stored(server: ServerUnderTest, batches: int) -> dict[int, int]:
    """Batches by agent."""
    end_s = swarm.START_MS / 1000 + batches
    query = f"count_over_time({swarm.METRIC}[{batches + 10}s])"
    asked = urlencode({"query": query, "time": end_s})
    status, told = server.call("GET", f"/api/v1/query?{asked}", timeout_s=60)
    assert status == 200, told
    rows = json.loads(told)["data"]["result"]
    return {int(row["metric"]["agent"]): int(row["value"][1]) for row in rows}


def check(seen: swarm.Seen, back_s: int, steady_s: int, after_s: int) -> None:
    """`back_s` is the second in which it went on."""
    steady = sum(seen.acked[s] for s in range(STEADY_FROM_S, steady_s)) / (steady_s - STEADY_FROM_S)
    assert seen.no_retry_after == 0
    assert seen.others == 0
    curve = {s: seen.acked[s] for s in range(back_s - 2, back_s + after_s)}
    # From 10 s on never less, over any three seconds.
    for from_s in range(back_s + WITHIN_S, back_s + after_s - 3):
        goodput = sum(seen.acked[s] for s in range(from_s, from_s + 3)) / 3
        assert goodput >= 0.95 * steady, (steady, curve)
    # And no second wave of refusals.
    later = sum(seen.refused[s] for s in range(back_s + WITHIN_S, back_s + after_s))
    assert later <= 0.05 * sum(seen.acked.values()), seen.refused


@pytest.mark.timeout(180)
def test_a_storm(tmp_path: Path) -> None:
    seen = storm(tmp_path, agents=1500, interval_s=3.0, steady_s=10, stopped_s=8, after_s=16)
    check(seen, 18, 10, 16)


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_five_thousand_agents_after_a_minute(tmp_path: Path) -> None:
    seen = storm(tmp_path, agents=5000, interval_s=10.0, steady_s=25, stopped_s=60, after_s=45)
    check(seen, 85, 25, 45)
