"""A1: kill -9 at random moments, restart, ask the oracle. Used by a short test and a long run.

python -m tests.faults.kill --cycles 1000 --seed 7
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from tests.faults.oracle import METRIC, Ledger, Outcome, Report, found_in_matrix, remote_write_body
from tests.faults.server import ServerUnderTest

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
START_MS = 1_600_000_000_000
LIFE_MS = 40_000_000
"""Time window of one life's points: far more than a life can write."""
FREQUENT_SEALS = {
    "SLUICEWAY_SEAL_POINTS_MAX": "4000",
    "SLUICEWAY_SEAL_S_MAX": "0.3",
}


@dataclass
class Outcomes:
    cycles: int
    acked: int
    unknown_batches: int
    ready_s_max: float


class Writer(threading.Thread):
    """One client: batches one after the other until told to stop or cut off."""

    def __init__(self, server: ServerUnderTest, ledger: Ledger, seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.ledger = server, ledger
        self.random = random.Random(seed)
        self.stopping = threading.Event()

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        while not self.stopping.is_set():
            time.sleep(self.random.uniform(0.0, 0.01))
            batch = self.ledger.new_batch(self.random.randint(1, 400))
            try:
                connection.request(
                    "POST", "/api/v1/write", remote_write_body(batch.points), HEADERS
                )
                answer = connection.getresponse()
                answer.read()
            except (OSError, HTTPException):
                return  # the batch stays UNKNOWN
            if answer.status in (200, 204):
                batch.outcome = Outcome.ACK
            elif 400 <= answer.status < 500 and answer.status != 429:
                batch.outcome = Outcome.REJECT


def ask(server: ServerUnderTest, life: int) -> dict[tuple[int, int], list[float]]:
    """Every stored point of one life's time window, through the query API."""
    end_s = (START_MS + (life + 1) * LIFE_MS) / 1000 - 1
    answer = server.instant(f"{METRIC}[{LIFE_MS // 1000}s]", end_s)
    return found_in_matrix(answer)


def run_cycles(directory: Path, cycles: int, seed: int, kill_ms: tuple[int, int]) -> Outcomes:
    """`cycles` times: write, kill -9 at a random moment, start again, ask the oracle.

    A life's points lie in a time window of its own. After each kill this life and the one before
    are checked; every hundredth time, and at the end, all of them, and the ledger's equations.
    """
    chance = random.Random(seed)
    server = ServerUnderTest(directory, env=FREQUENT_SEALS)
    ready_s_max = 0.0
    lives: list[Ledger] = []
    reports: dict[int, Report] = {}

    def check(life: int) -> None:
        reports[life] = lives[life].check(ask(server, life))
        assert reports[life].clean, f"life {life}, seed {seed}: {reports[life]}"

    try:
        server.start()
        for cycle in range(cycles):
            base_ms = START_MS + cycle * LIFE_MS
            ledgers = [
                Ledger(base_ms, 40, seed=2 * cycle),
                Ledger(base_ms + 500, 40, 2 * cycle + 1),
            ]
            writers = [Writer(server, ledger, seed + cycle) for ledger in ledgers]
            for writer in writers:
                writer.start()
            time.sleep(chance.randint(*kill_ms) / 1000)
            server.kill()
            for writer in writers:
                writer.stopping.set()
                writer.join()
            server.start()
            ready_s_max = max(ready_s_max, server.ready_s)
            merged = Ledger(base_ms, 40)
            merged.batches = [batch for ledger in ledgers for batch in ledger.batches]
            lives.append(merged)
            whole = cycle % 100 == 99 or cycle == cycles - 1
            for life in range(0 if whole else max(0, cycle - 1), cycle + 1):
                check(life)
            if whole:
                check_equations(server)
                acked = sum(report.acked for report in reports.values())
                print(f"{cycle + 1} kills: acked {acked}, lost 0", file=sys.stderr, flush=True)
    finally:
        server.kill()
    return Outcomes(
        cycles,
        sum(report.acked for report in reports.values()),
        sum(report.unknown_batches for report in reports.values()),
        ready_s_max,
    )


def check_equations(server: ServerUnderTest) -> None:
    """The ledger's flow and stock equations, exactly, the stock counted row by row."""
    ledger = server.json("/api/v1/ledger", raw_scan="true")["data"]
    for outcomes in ledger["tenants"].values():
        kept = ("stored", "folded", "dead_lettered", "discarded", "duplicate")
        known = sum(outcomes[name] for name in kept) + sum(outcomes["rejected"].values())
        assert outcomes["received"] == known, ledger
    stock = ledger["stock"]
    assert stock["raw_scan"], ledger
    assert stock["block_rows"] + stock["buffer_rows"] == stock["expected_rows"], ledger
    assert ledger["balanced"], ledger


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluiceway-kill-") as base:
        data = Path(base) / "data"
        data.mkdir()
        outcomes = run_cycles(data, arguments.cycles, arguments.seed, (50, 2000))
    print(
        json.dumps(
            {
                "test": "A1 kill -9",
                "cycles": outcomes.cycles,
                "acked": outcomes.acked,
                "unknown_batches": outcomes.unknown_batches,
                "lost": 0,
                "duplicated": 0,
                "phantom": 0,
                "ready_s_max": round(outcomes.ready_s_max, 2),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
