"""Cold objects: bytes per raw 10 s point by kind of series, reading two years of 1,000 series, and
days merged to a month.

    python benches/cold.py sizes
    python benches/cold.py read [--months 24] [--directory DIR]
    python benches/cold.py month [--series 20000] [--days 30]

Windows are made from simulated raw points, 360 an hour, as a rollup would make them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sluiceway.kernels import ColdFile, Disk, LabelTable, merge_cold, write_cold

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
POINTS_AN_HOUR = 360
COUNTER, GAUGE = 1, 2
Array = np.ndarray[Any, Any]
Windows = dict[str, Array]


def raw(shape: str, series: int, hours: int, draw: np.random.Generator) -> Array:
    """Raw values as the shared bench's generator draws them, [series, hours, 360]."""
    count = hours * POINTS_AN_HOUR
    if shape == "const":
        values = np.repeat(np.floor(draw.uniform(0, 1000, series)), count)
    elif shape == "counter":
        rates = np.exp(4 + 2 * draw.normal(size=series))
        steps = draw.poisson(rates[:, None], (series, count)).astype(float)
        values = np.cumsum(steps, axis=1) + np.floor(draw.uniform(0, 1e6, (series, 1)))
    else:
        # A walk between 0 and 100: whole numbers, or two decimals.
        walk = np.empty((count, series))
        at = draw.uniform(0, 100, series)
        for step in range(count):
            at = np.clip(at + draw.normal(size=series), 0, 100)
            walk[step] = at
        values = np.floor(walk.T) if shape == "int" else np.round(walk.T, 2)
    return np.ascontiguousarray(values).reshape(series, hours, POINTS_AN_HOUR)


def windows(shape: str, series: int, hours: int, from_ms: int, seed: int) -> Windows:
    draw = np.random.default_rng(seed)
    kind = COUNTER if shape == "counter" else GAUGE
    values = raw(shape, series, hours, draw)
    ends = from_ms + HOUR_MS * np.arange(1, hours + 1, dtype=np.int64)
    rows = series * hours
    # Each series is scraped at its own offset within the ten seconds, always the same.
    offsets = np.repeat(draw.integers(1, 10_000, series).astype(np.int64), hours)
    end_ms = np.tile(ends, series)
    gauge = kind == GAUGE
    flat = values.reshape(rows, POINTS_AN_HOUR)
    zeros = np.zeros(rows)
    return {
        "offsets": np.arange(0, rows + 1, hours, dtype=np.int64),
        "kinds": np.full(series, kind, np.uint8),
        "end_ms": end_ms,
        "count": np.full(rows, POINTS_AN_HOUR, np.uint32),
        "first_ms": end_ms - HOUR_MS + offsets,
        "first": np.ascontiguousarray(flat[:, 0]),
        "last_ms": end_ms - 10_000 + offsets,
        "last": np.ascontiguousarray(flat[:, -1]),
        "ends_stale": np.zeros(rows, np.bool_),
        "dropped": zeros,
        "sum": flat.sum(axis=1) if gauge else zeros,
        "minimum": flat.min(axis=1) if gauge else zeros,
        "maximum": flat.max(axis=1) if gauge else zeros,
    }


def label_sets(metric: str, series: int) -> LabelTable:
    return LabelTable.from_lists(
        [
            {
                "__name__": metric,
                "env": "prod",
                "host": f"host-{number // 4:05d}",
                "instance": f"10.0.{number // 250}.{number % 250}:9100",
                "job": "node",
                "service": f"service-{number % 40:02d}",
            }
            for number in range(series)
        ]
    )


def unit(from_ms: int, until_ms: int) -> str:
    return json.dumps(
        {
            "directory": "cold",
            "tenant": "bench",
            "window_ms": HOUR_MS,
            "from_ms": from_ms,
            "until_ms": until_ms,
            "number": 1,
        }
    )


def sizes(directory: Path, series: int, days: int) -> None:
    disk = Disk.real(str(directory))
    hours = days * 24
    for shape in ("int", "float2", "counter", "const"):
        made = windows(shape, series, hours, 0, seed=1)
        labels = label_sets(f"bench_{shape}", series)
        start = time.perf_counter()
        (report,) = json.loads(write_cold(disk, unit(0, days * DAY_MS), labels, made))
        took_s = time.perf_counter() - start
        points = report["points"]
        print(
            f"{shape:8} {report['bytes'] / report['windows']:7.3f} B a window"
            f" {report['bytes'] / points:8.5f} B a raw point"
            f"   written at {points / took_s / 1e6:,.0f} M raw points/s"
        )


def read(directory: Path, series: int, months: int) -> None:
    disk = Disk.real(str(directory))
    labels = label_sets("bench_counter", series)
    paths = []
    # One month's values for all of them, each at its own time.
    made = windows("counter", series, 720, 0, seed=1)
    for month in range(months):
        start_ms = month * 30 * DAY_MS
        if month:
            for name in ("end_ms", "first_ms", "last_ms"):
                made[name] += 30 * DAY_MS
        told = write_cold(disk, unit(start_ms, start_ms + 30 * DAY_MS), labels, made)
        paths += [report["path"] for report in json.loads(told)]
    matchers = json.dumps([{"name": "env", "op": "=", "value": "prod"}])
    for attempt in range(3):
        rows = taken = 0
        start = time.perf_counter()
        for path in paths:
            file = ColdFile(disk, f"cold/{path}")
            found = file.select(matchers, 10_000)
            answer = file.read(found, 0, 1 << 62)
            rows += len(answer["end_ms"])
            taken += int(answer["bytes_read"])
        took_s = time.perf_counter() - start
        print(
            f"run {attempt}: {len(paths)} objects, {rows:,} windows of {series:,} series,"
            f" {taken / 1e6:.1f} MB read, all columns, in {took_s:.2f} s"
        )


def month(directory: Path, series: int, days: int) -> None:
    """Days of ten metrics, merged by a process of its own: its time and its memory."""
    disk = Disk.real(str(directory))
    each = series // 10
    tables = [label_sets(f"bench_{number}", each) for number in range(10)]
    labels = LabelTable.concat(tables)
    made = windows("counter", series, 24, 0, seed=1)
    parts = []
    for day in range(days):
        if day:
            for name in ("end_ms", "first_ms", "last_ms"):
                made[name] += DAY_MS
        span = (day * DAY_MS, (day + 1) * DAY_MS)
        reports = json.loads(write_cold(disk, unit(*span), labels, made))
        parts += [{"path": report["path"], "owned_ms": [span]} for report in reports]
    (directory / "parts.json").write_text(json.dumps(parts))
    asked = [sys.executable, __file__, "merge", "--directory", str(directory), "--days", str(days)]
    print(subprocess.run(asked, check=True, capture_output=True, text=True).stdout, end="")


def peak_kib() -> int:
    """This program's own highest resident size: what getrusage says is the parent's too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def merge(directory: Path, days: int) -> None:
    disk, parts = Disk.real(str(directory)), (directory / "parts.json").read_text()
    before = peak_kib()
    start = time.perf_counter()
    reports = json.loads(merge_cold(disk, unit(0, days * DAY_MS), parts))
    took_s = time.perf_counter() - start
    grown = peak_kib() - before
    rows = sum(report["windows"] for report in reports)
    print(
        f"{len(json.loads(parts))} objects of {days} days to {len(reports)}: {rows:,} windows in"
        f" {took_s:.1f} s, read back too, {rows / took_s / 1e6:.2f} M windows/s,"
        f" {grown / 1024:.0f} MiB more resident at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sizes", "read", "month", "merge"))
    parser.add_argument("--series", type=int, default=0)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--directory", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        directory = given.directory or Path(made)
        if given.what == "sizes":
            sizes(directory, given.series or 200, given.days)
        elif given.what == "month":
            month(directory, given.series or 20_000, given.days)
        elif given.what == "merge":
            merge(directory, given.days)
        else:
            read(directory, given.series or 1000, given.months)


if __name__ == "__main__":
    main()
