"""A burst: the processor stopped under load. Acks go on, answers are whole or say that they lag,
and afterwards every acked point is there once; the disk budget alone ends it."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.client import Client, check, must_retry_later, new_ledger
from tests.faults.kill import FREQUENT_SEALS, START_MS
from tests.faults.oracle import METRIC, Ledger, Outcome, Point
from tests.faults.paced import set_pace
from tests.faults.server import ServerUnderTest

STOPPED_S = 3.0
DRAIN_S_MAX = 90.0
FULLER_S_MAX = 30.0
SMALL_DISK_BYTES = 64 << 20
FAST_ANSWERS = {"SLUICEWAY_VISIBILITY_WAIT_MAX_MS": "100"}


class PacedServer(ServerUnderTest):
    """The server with a processor that goes as fast as its pace file says."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        super().__init__(directory, env=env)
        self.pace_file = directory.parent / "pace"
        set_pace(self.pace_file, math.inf)

    def command(self) -> list[str]:
        paced = [sys.executable, "-m", "tests.faults.paced", str(self.pace_file)]
        return [*paced, str(self.directory), f"127.0.0.1:{self.port}"]

    def metric(self, name: str) -> float:
        lines = self.call("GET", "/metrics")[1].decode().splitlines()
        found = (line for line in lines if line.startswith(f"{name} "))
        return float(next(found).split()[-1])

    def wait_drained(self) -> None:
        until_s = time.monotonic() + DRAIN_S_MAX
        while self.metric("sluiceway_journal_lag_records") > 0:
            assert time.monotonic() < until_s, "it does not catch up"
            time.sleep(0.02)


def serve(tmp_path: Path, **env: str) -> Iterator[PacedServer]:
    (tmp_path / "data").mkdir()
    server = PacedServer(tmp_path / "data", FREQUENT_SEALS | FAST_ANSWERS | env)
    with server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PacedServer]:
    yield from serve(tmp_path)


@pytest.fixture
def small_server(tmp_path: Path) -> Iterator[PacedServer]:
    yield from serve(tmp_path, SLUICEWAY_DISK_MAX=str(SMALL_DISK_BYTES))


def probe(server: PacedServer, client: Client, ledger: Ledger) -> bool:
    """Push a point, ask for it: is it there? Where not, the answer must say that it lags."""
    batch = ledger.new_batch(1)
    client.send(batch)
    assert batch.outcome is Outcome.ACK
    point: Point = batch.points[0]
    at_s = f"{point.time_ms / 1000:.3f}"
    told = server.json("/api/v1/query", query=f'{METRIC}{{series="{point.series}"}}', time=at_s)
    values = [float(row["value"][1]) for row in told["data"]["result"]]
    if values == [point.value]:
        return True
    assert any("lags" in warning for warning in told.get("warnings", [])), told
    return False


def test_a_stopped_processor_refuses_nothing_and_loses_nothing(server: PacedServer) -> None:
    ledger, probes = new_ledger(11), Ledger(START_MS + 500, 1, seed=77_000)
    client = Client(server.port, ledger, batch_points=200)
    client.pause_s = 0.0
    prober = Client(server.port, probes)
    client.start()
    time.sleep(1.0)
    set_pace(server.pace_file, 0)
    time.sleep(0.3)  # a slice that was being applied
    began_s = time.monotonic()
    held = []
    while time.monotonic() < began_s + STOPPED_S:
        held.append(probe(server, prober, probes))
        time.sleep(0.1)
    assert not any(held), "the processor was not stopped"
    client.stop()
    behind = server.metric("sluiceway_journal_lag_records")
    acked_stopped = len(client.statuses(began_s))
    resumed_s = time.monotonic()
    set_pace(server.pace_file, math.inf)
    server.wait_drained()
    drained_s = time.monotonic() - resumed_s
    assert probe(server, prober, probes)
    assert set(client.statuses()) == {204}
    assert behind >= acked_stopped > 100
    print(json.dumps({"test": "burst", "records": behind, "drained_s": round(drained_s, 3)}))
    # Probes stand between the times of the load: one ledger for both.
    ledger.batches += probes.batches
    check(server, ledger)
    server.kill()
    server.start()
    check(server, ledger)


def test_a_throttled_processor_says_that_it_lags(server: PacedServer) -> None:
    ledger = new_ledger(12)
    client = Client(server.port, ledger, batch_points=50)
    client.start()
    time.sleep(1.0)
    set_pace(server.pace_file, len(client.answers) / 10)
    until_s = time.monotonic() + DRAIN_S_MAX
    while server.metric("sluiceway_journal_lag_records") < 10:
        assert time.monotonic() < until_s, "the processor was not held back"
        time.sleep(0.1)
    probes = Ledger(START_MS + 500, 1, seed=78_000)
    prober = Client(server.port, probes)
    assert not all(probe(server, prober, probes) for _ in range(5))
    client.stop()
    ledger.batches += probes.batches
    set_pace(server.pace_file, math.inf)
    server.wait_drained()
    assert set(client.statuses()) == {204}
    check(server, ledger)


@pytest.mark.timeout(600)
def test_only_a_full_disk_ends_it(small_server: PacedServer) -> None:
    """At 90 % of disk_max new series are refused, at 95 % everything; known series flow between."""
    server = small_server
    ledger = new_ledger(13)
    known = Client(server.port, ledger, batch_points=4_000, tries=1)
    known.pause_s = 0.0
    for _ in range(20):  # every series is known before the stop
        known.send(ledger.new_batch(20))
    server.wait_drained()
    set_pace(server.pace_file, 0)
    used: list[tuple[float, int]] = []
    newcomer = Ledger(START_MS, 1, seed=900)
    new_series, number = [], 0
    fullest, until_s = 0.0, 0.0
    refusals = 0
    while refusals < 3:
        share = server.metric("sluiceway_disk_bytes") / SMALL_DISK_BYTES
        # A busy machine fills it slowly; that it stops being filled is the fault.
        if share > fullest:
            fullest, until_s = share, time.monotonic() + FULLER_S_MAX
        assert time.monotonic() < until_s and share < 1.1, f"never refused: {used[-3:]}"
        for _ in range(4):
            answer = known.send_once(batch := ledger.new_batch(4_000))
            if answer.status == 204:
                batch.outcome = Outcome.ACK
            used.append((share, answer.status))
            refusals += answer.status == 503
        if share > 0.5:
            number += 1
            status = push_series(server, f"late_{number}", newcomer.start_ms)
            new_series.append((share, f"late_{number}", status))
    assert all(status in (204, 503) for _, status in used)
    accepted_at = [share for share, status in used if status == 204]
    refused_at = [share for share, status in used if status == 503]
    assert max(accepted_at) >= 0.90, "refused too early"
    assert min(refused_at) >= 0.90, (min(refused_at), "refused too early")
    final = server.metric("sluiceway_disk_bytes") / SMALL_DISK_BYTES
    assert 0.95 <= final <= 1.05, final
    must_retry_later(known)
    set_pace(server.pace_file, math.inf)
    server.wait_drained()
    told = server.json("/api/v1/ledger", raw_scan="true")["data"]
    assert told["balanced"], told
    outcomes = told["tenants"]["default"]
    late = [name for share, name, status in new_series if share >= 0.92 and status == 204]
    early = [name for share, name, status in new_series if share < 0.88 and status == 204]
    found = {
        row["metric"]["__name__"]
        for row in server.instant('{__name__=~"late_.*"}', START_MS / 1000)
    }
    assert set(early) <= found and early
    assert not found & set(late) and late
    assert outcomes["rejected"]["disk"] >= len(late)
    print(json.dumps({"test": "full disk", "accepted_up_to": max(accepted_at), "used": final}))


def push_series(server: PacedServer, name: str, time_ms: int) -> int:
    from fakes.server import remote_write
    from tests.faults.kill import HEADERS

    body = remote_write([({"__name__": name}, [(time_ms, 1.0)])])
    return server.call("POST", "/api/v1/write", body, HEADERS)[0]
