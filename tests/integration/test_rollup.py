"""Hours of points on a real server: rolled, verified, rolled again when late, over kill -9."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.keyed import Keyed
from fakes.server import remote_write
from fakes.waiting import within
from sluiceway.kernels import Disk
from sluiceway.tiers.catalog import Catalog
from sluiceway.tiers.catalog_store import follow
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

HOURS, SERIES = 5, 4
PLAN = {"retention": {"minute_ms": 40 * DAY_MS, "hour_ms": 400 * DAY_MS}}


@pytest.fixture
def keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyed]:
    monkeypatch.setenv("SLUICEWAY_TIERS__RAW_MS", str(3 * DAY_MS))
    monkeypatch.setenv("SLUICEWAY_TIERS__RAW_MS", str(3 * DAY_MS))
    monkeypatch.setenv("SLUICEWAY_TIERS__DELAY_S", "0")
    monkeypatch.setenv("SLUICEWAY_TIERS__REROLL_S_MIN", "0")
    keyed = Keyed(tmp_path / "data")
    with keyed.server:
        yield keyed


def push(keyed: Keyed, key: str, times_ms: list[int], name: str = "m") -> int:
    series = [
        ({"__name__": name, "i": str(i)}, [(t, float(t % 97 + i)) for t in times_ms])
        for i in range(SERIES)
    ]
    return keyed.call(key, "POST", "/api/v1/write", remote_write(series))[0]


def command(keyed: Keyed, *words: str) -> str:
    environment = {**os.environ, "SLUICEWAY_KEY": keyed.root}
    http = f"--http=127.0.0.1:{keyed.server.port}"
    ran = subprocess.run(
        [sys.executable, "-m", "sluiceway.cli", "rollup", *words, http],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def status(keyed: Keyed) -> dict[str, Any]:
    told: dict[str, Any] = keyed.admin("GET", "/rollup")
    return told


def rolled(keyed: Keyed) -> dict[str, Any]:
    command(keyed, "run")
    found = {row["tenant"]: row for row in status(keyed)["tenants"]}
    row: dict[str, Any] = found.get("acme", {})
    return row


def points(catalog: Catalog) -> int:
    return sum(file.points for file in catalog.of("acme", "warm"))


def test_hours_are_rolled_and_rolled_again(keyed: Keyed, tmp_path: Path) -> None:
    assert "no tenant has tiers" in command(keyed, "status")
    key = keyed.tenant("acme", limits=PLAN)
    now_ms = time.time_ns() // 1_000_000
    closed = now_ms // HOUR_MS * HOUR_MS
    start = closed - HOURS * HOUR_MS
    times = list(range(start + 15_000, closed, 15_000))
    within(lambda: push(keyed, key, times) == 204, "the key works")
    within(lambda: rolled(keyed).get("rolled_until_ms", 0) >= closed, "all hours are rolled")
    follower = follow(tmp_path / "data")
    catalog = follower.catalog()
    assert points(catalog) == SERIES * len(times)
    disk = Disk.real(str(tmp_path / "data"))
    assert all(len(disk.read(file.path)) == file.bytes for file in catalog.files)
    assert keyed.metric("sluiceway_rollup_lag_seconds") == 0
    assert "acme" in command(keyed, "status")

    late = [start + HOUR_MS + 7]
    assert push(keyed, key, late, "late") == 204
    total = SERIES * (len(times) + 1)
    command(keyed, "run")
    within(lambda: points(follower.catalog()) >= total, "the late hour is rolled again")
    within(lambda: rolled(keyed)["dirty_hours"] == 0, "and clean")

    keyed.server.kill()
    keyed.server.start()
    assert follower.catalog().rolled("acme").warm >= closed
    assert push(keyed, key, [start + 2 * HOUR_MS + 9], "later") == 204
    command(keyed, "run")
    within(lambda: rolled(keyed)["dirty_hours"] == 0, "marked after the restart, and rolled")
    command(keyed, "pause")
    assert status(keyed)["paused"] is True
    command(keyed, "resume")
    assert status(keyed)["failures_total"] == 0


def test_points_past_the_raw_horizon_are_refused_by_reason(keyed: Keyed) -> None:
    key = keyed.tenant("acme", limits=PLAN)
    now_ms = time.time_ns() // 1_000_000
    old = now_ms - 4 * DAY_MS

    # Each body is another: one that was taken before the age was in force stays a duplicate.
    values = itertools.count(1.0)

    def refused() -> bool:
        body = remote_write([({"__name__": "x"}, [(old, next(values)), (now_ms, 2.0)])])
        status, answer = keyed.call(key, "POST", "/api/v1/write", body)
        return status == 400 and b"too_old" in answer

    command(keyed, "run")
    within(refused, "the age of the plan is in force")

    def counted() -> bool:
        own = json.loads(keyed.get(key, "ledger")[1])["data"]
        outcomes = own["tenants"]["acme"] if "tenants" in own else own
        return bool(outcomes["rejected"].get("too_old", 0) >= 1)

    # The answer is the door's; the ledger counts at apply, a moment later.
    within(counted, "it is in the ledger")
