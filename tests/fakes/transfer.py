"""Servers with tiers, commands, and exports read back, for tests of export and import."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fakes.server import Server
from sluiceway.tiers.frames import Frame, read_frames

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
ROLLED_S_MAX = 60.0
RETENTION = {"minute_ms": 400 * DAY_MS, "hour_ms": 1100 * DAY_MS}
Points = dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]


def run(*arguments: str) -> tuple[int, str]:
    """A command's status, and what it said."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "sluiceway.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def tiered_server(directory: Path, raw_days: int = 1) -> Iterator[Server]:
    """A server whose raw points may go after a day, without a delay or a grace."""
    before = dict(os.environ)
    os.environ.update(
        SLUICEWAY_TIERS__RAW_MS=str(raw_days * DAY_MS),
        SLUICEWAY_TIERS__DELAY_S="0",
        SLUICEWAY_TIERS__GRACE_S="0",
        SLUICEWAY_SEAL_S_MAX="1",
    )
    try:
        with Server(directory) as running:
            yield running
    finally:
        os.environ.clear()
        os.environ.update(before)


def give_tiers(server: Server, retention: Mapping[str, int] = RETENTION) -> None:
    """The default tenant has tiers from now on."""
    status, answer = server.call(
        "PATCH",
        "/admin/v1/tenants/default",
        json.dumps({"limits": {"retention": dict(retention)}}).encode(),
        {"Content-Type": "application/json"},
    )
    assert status == 200, answer
    deadline_s = time.monotonic() + ROLLED_S_MAX
    while time.monotonic() < deadline_s:
        told = rollup(server)
        if "default" in told["tiers_on"]:
            return
        time.sleep(0.1)
    raise AssertionError("no tiers")


def rollup(server: Server) -> dict[str, Any]:
    answer = server.call("POST", "/admin/v1/rollup?action=run")[1]
    return dict(json.loads(answer)["data"])


def roll(server: Server, raw_from_ms: int) -> dict[str, Any]:
    """Wait until raw begins later than `raw_from_ms`: the default tenant's row of the status."""
    deadline_s = time.monotonic() + ROLLED_S_MAX
    row: dict[str, Any] = {}
    while time.monotonic() < deadline_s:
        rows = {row["tenant"]: row for row in rollup(server)["tenants"]}
        row = rows.get("default", {})
        if row.get("raw_from_ms", 0) > raw_from_ms:
            return row
        server.call("POST", "/admin/v1/flush?merge=all")
        time.sleep(0.25)
    raise AssertionError(f"not rolled: {row}")


def frames_of(path: Path) -> list[Frame]:
    with path.open("rb") as file:
        return [frame.unpack() for frame in read_frames(file)]


def key_of(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def points_in(frames: list[Frame]) -> Points:
    """Raw points of an export, series by series."""
    found: Points = {}
    for frame in frames:
        if frame.kind == "points":
            assert frame.labels is not None
            add_points(found, frame.labels.to_list(), frame, "times_ms", "values")
    return found


def last_points_in(frames: list[Frame]) -> Points:
    """The last point of each window of an export."""
    found: Points = {}
    for frame in frames:
        if frame.kind == "windows":
            assert frame.labels is not None
            add_points(found, frame.labels.to_list(), frame, "last_ms", "last")
    return found


def add_points(
    found: Points, labels: list[dict[str, str]], frame: Frame, times: str, values: str
) -> None:
    offsets = frame.columns["offsets"]
    for i, own in enumerate(labels):
        rows = slice(int(offsets[i]), int(offsets[i + 1]))
        pairs = zip(
            frame.columns[times][rows].tolist(), frame.columns[values][rows].tolist(), strict=True
        )
        found.setdefault(key_of(own), []).extend(pairs)


def bits(points: Points) -> dict[tuple[tuple[str, str], ...], list[tuple[int, int]]]:
    """The same with values as their bits: NaN equals NaN."""
    return {
        key: [(t, int(np.float64(v).view(np.uint64))) for t, v in own]
        for key, own in points.items()
    }
