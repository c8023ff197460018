"""A short life of a hot shard on a real disk that seals, merges, rolls segments and expires; told
step by step on standard output. Run under strace by test_syscalls.py:

PYTHONPATH=tests python -m tests.faults.short_life DIRECTORY
"""

from __future__ import annotations

import sys

from sluiceway.kernels import Disk
from tests.faults.lives import NEVER, Client, Life, Shape, opened, settle
from tests.faults.oracle import Ledger

BATCHES = 12
SHAPE = Shape(batches=BATCHES, retention_ms=0)
START_MS = 1_767_225_600_000


def plan() -> Ledger:
    """The batches that the life pushes, in order."""
    ledger = Ledger(START_MS, SHAPE.series, seed=4)
    for number in range(BATCHES):
        ledger.new_batch((4, 9, 60)[number % 3])
    return ledger


def run(directory: str) -> None:
    disk = Disk.real(directory)
    disk.lock()
    hot = opened(disk, SHAPE, START_MS)
    ledger = plan()
    client = Client(hot, Life(SHAPE, disk, ledger, acked_at=[NEVER] * BATCHES, counted=False))
    for number in range(BATCHES):
        tell(f"push {number}")
        client.push(number)
        if client.drain():
            tell(f"refused {number}")
        else:
            tell(f"ack {number}")
        hot.step()
        hot.seal_step()
        if number % 3 == 2:
            hot.merge_step()
    settle(hot)
    hot.flush(True, 0.0)
    tell("end")
    hot.shard.close()


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run(sys.argv[1])
