"""How fast raw points are rolled up: blocks read, windows made, encoded, written and read back.

    python benches/rollup.py DIRECTORY [--series 2000] [--hours 6] [--interval 10] [--latencies]

Fills a fresh data directory without a server, merges it, and rolls all of it hour by hour, as one
unit, and as one unit with sketches of every series; units become hours too. `--latencies`: values
are drawn anew each time instead of walking. Run on a quiet machine: one core works.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fakes.hot import OPTIONS, acked
from fakes.remote_write import body
from sluiceway.clock import ManualClock
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk, make_cold
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

T0 = 20_000 * DAY_MS
OPTIONS = {**OPTIONS, "segment_bytes": 64 << 20}


def fill(hot: HotShard, series: int, hours: int, interval_ms: int, latencies: bool) -> int:
    """Counters, gauges of whole numbers and of two decimals, a third each; or latencies."""
    chance, count = random.Random(1), 0
    values = [float(chance.randrange(1_000)) for _ in range(series)]
    names = [("requests_total", "queue_length", "load_ratio")[i % 3] for i in range(series)]
    for start in range(T0 + interval_ms, T0 + hours * HOUR_MS + 1, interval_ms * 30):
        rows = []
        until = min(start + interval_ms * 30, T0 + hours * HOUR_MS + 1)
        for i in range(series):
            points = []
            for at in range(start, until, interval_ms):
                if latencies:
                    values[i] = chance.lognormvariate(3, 1)
                elif i % 3 == 0:
                    values[i] += chance.randrange(10)
                else:
                    values[i] += chance.randrange(-5, 6) / (1 if i % 3 == 1 else 100)
                points.append((at + i % 997, round(values[i], 2)))
            rows.append(({"__name__": names[i], "instance": f"host-{i:06d}"}, points))
            count += len(points)
            if len(rows) == 2_000 or i + 1 == series:
                data = body(rows)
                ticket = hot.shard.receive(
                    data, "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, until
                ).ticket
                assert acked(hot, ticket)
                rows = []
                while hot.step() == "applied":
                    pass
                while hot.seal_step():
                    pass
    return count


def roll(
    hot: HotShard, from_ms: int, until_ms: int, path: str, sketched: bool
) -> tuple[int, int, int]:
    """Bytes of the file, its windows, and those with a sketch."""
    request = {
        "tenant": "default",
        "from_ms": from_ms,
        "until_ms": until_ms,
        "window_ms": 60_000,
        "path": path,
        "sketches": [[]] if sketched else [],
    }
    file = json.loads(hot.shard.roll(json.dumps(request)))["file"]
    return file["bytes"], file["windows"], file["sketches"]


def hours_of(disk: Disk, path: str, sketched: bool) -> tuple[int, int]:
    """Bytes of the hours that a file of minutes comes to, and how many."""
    unit = {
        "directory": f"tiers/cold/{sketched}",
        "tenant": "default",
        "window_ms": HOUR_MS,
        "from_ms": T0,
        "until_ms": T0 + DAY_MS,
        "number": 1,
        "sketches": [[]] if sketched else [],
    }
    made = json.loads(make_cold(disk, path, json.dumps(unit)))
    return sum(one["bytes"] for one in made), sum(one["windows"] for one in made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--series", type=int, default=2_000)
    parser.add_argument("--hours", type=int, default=6)
    parser.add_argument("--interval", type=int, default=10)
    parser.add_argument("--latencies", action="store_true")
    told = parser.parse_args()
    told.directory.mkdir()
    disk = Disk.real(str(told.directory))
    disk.create_directory("tiers/warm")
    config = HotConfig(seal_points_max=1_000_000)
    hot = HotShard(disk, OPTIONS, config, ManualClock(T0))
    hot.load()
    count = fill(hot, told.series, told.hours, told.interval * 1000, told.latencies)
    hot.start()
    hot.flush(True)
    print(f"{count:,} points in {len(hot.version().blocks)} blocks")
    ways = (
        ("hour by hour", 1, False),
        ("as one unit", told.hours, False),
        ("as one unit, sketched", told.hours, True),
    )
    sizes = {}
    for name, step, sketched in ways:
        began_s, cpu_s, size = time.perf_counter(), time.process_time(), 0
        for hour in range(0, told.hours, step):
            path = f"tiers/warm/{step}-{hour}-{sketched}.swm"
            until_ms = T0 + (hour + step) * HOUR_MS
            found = roll(hot, T0 + hour * HOUR_MS, until_ms, path, sketched)
            size += found[0]
        sizes[sketched] = (path, found)
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        print(
            f"{name}: {count / wall_s / 1e6:.1f} M points/s wall, {count / cpu_s / 1e6:.1f} a"
            f" CPU-second, {size / count:.3f} B a raw point"
        )
    (plain, before), (path, after) = sizes[False], sizes[True]
    print(
        f"minutes: {before[0] / before[1]:.2f} B each, {(after[0] - before[0]) / after[2]:.2f} B a"
        f" sketch more ({after[2]:,} of {after[1]:,} have one)"
    )
    (less, _), (more, hours) = hours_of(disk, plain, False), hours_of(disk, path, True)
    print(f"hours: {less / hours:.1f} B each, {(more - less) / hours:.1f} B a sketch more")


if __name__ == "__main__":
    main()
