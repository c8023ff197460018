"""A4: SIGKILL at every write, sync, rename, unlink, create and allocation of a short life that
seals, merges and rolls segments. Needs strace; says so where it is missing."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sluiceway.kernels import Disk
from tests.faults.lives import START_MS, Life, recover
from tests.faults.oracle import Batch, Ledger, Outcome
from tests.faults.short_life import SHAPE, plan
from tests.faults.trace import need_strace

CHANGES = ("pwrite64", "fdatasync", "fsync", "fallocate", "ftruncate", "renameat", "unlinkat")
FOLDERS = ("", "journal", "journal/metrics", "hot", "hot/metrics")
FOLDERS += ("hot/metrics/blocks", "hot/metrics/state", "hot/metrics/manifest")


def traced(directory: Path, log: Path, *arguments: str) -> tuple[list[str], bool]:
    """What the life told, and whether it came to its end."""
    directory.mkdir()
    command = [need_strace(), "-f", "-qq", "-o", str(log)]
    if "trace=openat" in arguments:
        # Of the thousands of opens of a Python program, those below the data directory.
        command += [f"--trace-path={directory / folder}".rstrip("/") for folder in FOLDERS]
    command += [*arguments, sys.executable, "-m", "tests.faults.short_life", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    lines = done.stdout.splitlines()
    ended = "end" in lines
    assert ended or done.returncode in (-9, 137), done.stderr[-2000:]
    return lines, ended


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def calls_made(base: Path) -> list[tuple[str, int]]:
    """Each call that an undisturbed life makes below its data directory, by name and number."""
    made: list[tuple[str, int]] = []
    for run, calls in enumerate((",".join(CHANGES), "openat")):
        log = base / f"{run}.log"
        _, ended = traced(base / f"whole-{run}", log, "-e", f"trace={calls}")
        assert ended
        seen: Counter[str] = Counter()
        for line in log.read_text().splitlines():
            name = re.match(r"\d+\s+(\w+)\(", line)
            if name is not None:
                seen[name[1]] += 1
                # To open a directory on the way to a file changes nothing.
                if "O_DIRECTORY" not in line:
                    made.append((name[1], seen[name[1]]))
    made_of = Counter(call for call, _ in made)
    for call in ("pwrite64", "fdatasync", "fsync", "openat", "unlinkat", "fallocate"):
        assert made_of[call] > 3, made_of
    return made


def told_ledger(lines: list[str]) -> Ledger:
    """What the client knew when the process was killed."""
    ledger = Ledger(START_MS, SHAPE.series)
    for number, batch in enumerate(plan().batches):
        outcome = Outcome.REJECT
        if f"push {number}" in lines:
            outcome = Outcome.ACK if f"ack {number}" in lines else Outcome.UNKNOWN
        ledger.batches.append(Batch(batch.points, outcome))
    return ledger


def killed_at(base: Path, call: str, number: int) -> str:
    """Kill at the `number`-th `call`, recover twice; what is wrong, "" is well."""
    directory = base / f"{call}-{number}"
    rule = f"inject={call}:signal=KILL:when={number}"
    lines, ended = traced(directory, Path(os.devnull), "-e", f"trace={call}", "-e", rule)
    if ended:
        return ""  # This life made fewer calls: its groups fell otherwise.
    ledger = told_ledger(lines)
    life = Life(SHAPE, Disk.memory(), ledger)
    life.acked_at = [0 if batch.outcome is Outcome.ACK else 2 for batch in ledger.batches]
    life.pushed_at = [3 if batch.outcome is Outcome.REJECT else 1 for batch in ledger.batches]
    disk = Disk.real(str(directory))
    disk.lock()
    for _ in range(2):
        report, words = recover(life, disk, 1)
        if words or not report.clean:
            return f"{call} {number}: {report}; {words}"
    return ""


def check(base: Path, points: list[tuple[str, int]]) -> None:
    wrong = [words for call, number in points if (words := killed_at(base, call, number))]
    assert wrong == []


def test_killed_at_some_system_calls(tmp_path: Path) -> None:
    check(tmp_path, random.Random(7).sample(calls_made(tmp_path), 6))


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_killed_at_every_system_call(tmp_path: Path) -> None:
    began_s = time.monotonic()
    points = calls_made(tmp_path)
    check(tmp_path, points)
    print(json.dumps({"test": "A4", "points": len(points), "failures": 0}), end=" ")
    print(Counter(call for call, _ in points), f"{time.monotonic() - began_s:.0f} s")
