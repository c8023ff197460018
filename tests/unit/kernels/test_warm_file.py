"""Warm files as Python sees them; the format itself is tested beside its Rust code."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sluiceway.errors import Corruption, TenantFault
from sluiceway.kernels import (
    Disk,
    LabelTable,
    merge_warm,
    strip_warm_file,
    verify_warm_file,
    write_warm_file,
)

MINUTE_MS = 60_000
PODS = 8
POINTS = 360
COUNTER, GAUGE = 1, 2


@pytest.fixture
def disk() -> Disk:
    """An hour of a counter and a gauge on each of some pods, a point every 10 s, in `raw`."""
    disk = Disk.memory()
    sets = [
        {"__name__": name, "app": "shop", "pod": f"pod-{pod}"}
        for name in ("requests_total", "queue_length")
        for pod in range(PODS)
    ]
    times = np.tile(np.arange(1, POINTS + 1, dtype=np.int64) * 10_000, len(sets))
    steps = np.arange(POINTS, dtype=np.float64)
    values = np.concatenate(
        [steps * (pod + 1) for pod in range(PODS)]
        + [np.round(np.sin(steps) + pod, 6) for pod in range(PODS)]
    )
    write_warm_file(
        disk,
        "raw",
        "shop",
        MINUTE_MS,
        LabelTable.from_lists(sets),
        np.repeat(np.array([COUNTER, GAUGE], dtype=np.uint8), PODS),
        np.arange(len(sets) + 1, dtype=np.int64) * POINTS,
        times,
        values,
    )
    return disk


def test_a_file_is_read_back(disk: Disk) -> None:
    report = json.loads(verify_warm_file(disk, "raw"))
    assert report["bytes"] == len(disk.read("raw"))
    assert (report["tenant"], report["window_ms"], report["digits"]) == ("shop", MINUTE_MS, 0)
    assert (report["series"], report["windows"]) == (2 * PODS, 2 * PODS * 60)
    assert report["points"] == 2 * PODS * POINTS
    assert (report["min_end_ms"], report["max_end_ms"]) == (MINUTE_MS, 60 * MINUTE_MS)


def test_damage_is_told(disk: Disk) -> None:
    whole = disk.read("raw")
    for at in range(0, len(whole), 97):
        name = f"damaged-{at}"
        disk.write_new(name, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(Corruption):
            verify_warm_file(disk, name)


def test_labels_are_taken_and_digits_rounded(disk: Disk) -> None:
    rules = [{"matchers": [{"name": "app", "op": "=", "value": "shop"}], "labels": ["pod"]}]
    request = json.dumps({"rules": [*rules, {"digits": 3}]})
    report = json.loads(strip_warm_file(disk, "raw", "stripped", request))
    assert (report["series_before"], report["stripped"], report["file"]["series"]) == (16, 16, 2)
    assert (report["points_before"], report["file"]["digits"]) == (2 * PODS * POINTS, 3)
    # The gauge keeps all points; the folded counter counts as one that was scraped as its members.
    assert report["file"]["points"] == (PODS + 1) * POINTS
    assert json.loads(verify_warm_file(disk, "stripped")) == report["file"]
    with pytest.raises(TenantFault):
        strip_warm_file(disk, "raw", "bad", json.dumps({"rules": [{"digits": 13}]}))


def test_a_merge_keeps_rounding_and_what_is_folded(disk: Disk) -> None:
    rules = [{"matchers": [], "labels": ["pod"]}]
    strip_warm_file(disk, "raw", "stripped", json.dumps({"rules": [*rules, {"digits": 5}]}))
    strip_warm_file(disk, "raw", "rounded", json.dumps({"rules": [{"digits": 3}]}))
    halves = [("stripped", [[0, 30 * MINUTE_MS]]), ("rounded", [[30 * MINUTE_MS, 60 * MINUTE_MS]])]
    parts = [{"path": path, "owned_ms": owned} for path, owned in halves]
    request = {"tenant": "shop", "window_ms": MINUTE_MS, "path": "merged", "parts": parts}
    merged = json.loads(merge_warm(disk, json.dumps(request)))
    assert merged["digits"] == 3
    again = json.dumps({"rules": rules})
    assert json.loads(strip_warm_file(disk, "merged", "one", again))["file"]["series"] == 2
