"""How fast raw points are rolled up: blocks read, windows made, encoded, written and read back.

    python benches/rollup.py DIRECTORY [--series 2000] [--hours 6] [--interval 10]

Fills a fresh data directory without a server, merges it, and rolls all of it hour by hour and then
as one unit. Run on a quiet machine: one core works.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fakes.hot import OPTIONS, acked
from fakes.remote_write import body
from sluiceway.clock import ManualClock
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

T0 = 20_000 * DAY_MS
OPTIONS = {**OPTIONS, "segment_bytes": 64 << 20}


def fill(hot: HotShard, series: int, hours: int, interval_ms: int) -> int:
    """Counters, gauges of whole numbers and of two decimals, a third each."""
    chance, count = random.Random(1), 0
    values = [float(chance.randrange(1_000)) for _ in range(series)]
    names = [("requests_total", "queue_length", "load_ratio")[i % 3] for i in range(series)]
    for start in range(T0 + interval_ms, T0 + hours * HOUR_MS + 1, interval_ms * 30):
        rows = []
        until = min(start + interval_ms * 30, T0 + hours * HOUR_MS + 1)
        for i in range(series):
            points = []
            for at in range(start, until, interval_ms):
                if i % 3 == 0:
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


def roll(hot: HotShard, from_ms: int, until_ms: int, path: str) -> str:
    request = (
        f'{{"tenant":"default","from_ms":{from_ms},"until_ms":{until_ms},'
        f'"window_ms":60000,"path":"{path}"}}'
    )
    return hot.shard.roll(request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--series", type=int, default=2_000)
    parser.add_argument("--hours", type=int, default=6)
    parser.add_argument("--interval", type=int, default=10)
    told = parser.parse_args()
    told.directory.mkdir()
    disk = Disk.real(str(told.directory))
    disk.create_directory("tiers/warm")
    config = HotConfig(seal_points_max=1_000_000)
    hot = HotShard(disk, OPTIONS, config, ManualClock(T0))
    hot.load()
    count = fill(hot, told.series, told.hours, told.interval * 1000)
    hot.start()
    hot.flush(True)
    print(f"{count:,} points in {len(hot.version().blocks)} blocks")
    for name, step in (("hour by hour", 1), ("as one unit", told.hours)):
        began_s, cpu_s, size = time.perf_counter(), time.process_time(), 0
        for hour in range(0, told.hours, step):
            path = f"tiers/warm/{step}-{hour}.swm"
            roll(hot, T0 + hour * HOUR_MS, T0 + (hour + step) * HOUR_MS, path)
            size += (told.directory / path).stat().st_size
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
        print(
            f"{name}: {count / wall_s / 1e6:.1f} M points/s wall, {count / cpu_s / 1e6:.1f} a"
            f" CPU-second, {size / count:.3f} B a raw point"
        )


if __name__ == "__main__":
    main()
