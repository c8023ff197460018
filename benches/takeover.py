"""Taking a shard over: all its blocks fetched first, or each when it is asked for.

    python benches/takeover.py --blocks 40 --points 500000 --delay-ms 20

A shard of so many blocks of random values on a store of which each request takes `--delay-ms`
longer, as one over a network does. Told: seconds until another directory has loaded it, bytes that
came, and then the first query of the newest block's range and of all.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
from fakes.hot import acked, settle  # noqa: E402
from fakes.remote_write import body  # noqa: E402
from sluiceway.clock import SystemClock  # noqa: E402
from sluiceway.kernels import (  # noqa: E402
    ENCODING_IDENTITY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
)
from sluiceway.objects.embedded import EmbeddedObjects  # noqa: E402
from sluiceway.objects.interface import ObjectFacts  # noqa: E402
from sluiceway.processor.hot_shard import HotShard  # noqa: E402
from sluiceway.services.offsite.elsewhere import BlocksElsewhere, is_lazy  # noqa: E402
from sluiceway.services.offsite.follower import Offsite  # noqa: E402
from sluiceway.services.offsite.takeover import take_shard  # noqa: E402
from sluiceway.tiers.hot import HotConfig  # noqa: E402

CONFIG = HotConfig(seal_points_max=1 << 30, day_points_min=1 << 40, merge_fan_in=1_000)
OPTIONS = {"segment_bytes": 64 << 20, "hash_seed": 7}
SERIES = 100
CLOCK = SystemClock()


class FarAway:
    """A store whose every answer takes longer, and how much came."""

    def __init__(self, store: EmbeddedObjects, delay_s: float) -> None:
        self._store, self._delay_s = store, delay_s
        self.bytes = self.requests = 0

    def create(self, name: str, data: bytes) -> None:
        self._wait()
        self._store.create(name, data)

    def put(self, name: str, data: bytes) -> None:
        self._wait()
        self._store.put(name, data)

    def get(self, name: str) -> bytes:
        return self._got(self._store.get(name))

    def get_range(self, name: str, start: int, length: int) -> bytes:
        return self._got(self._store.get_range(name, start, length))

    def facts(self, name: str) -> ObjectFacts:
        self._wait()
        return self._store.facts(name)

    def list(self, prefix: str = "") -> Iterator[ObjectFacts]:
        self._wait()
        return self._store.list(prefix)

    def delete(self, name: str) -> None:
        self._wait()
        self._store.delete(name)

    def sweep(self) -> int:
        return self._store.sweep()

    def _got(self, data: bytes) -> bytes:
        self._wait()
        self.bytes += len(data)
        return data

    def _wait(self) -> None:
        self.requests += 1
        time.sleep(self._delay_s)


def fill(place: Path, store: EmbeddedObjects, blocks: int, points: int, start_ms: int) -> None:
    last = take_shard(store, place, CLOCK, os.urandom)
    hot = HotShard(Disk.real(str(place)), OPTIONS, CONFIG, CLOCK)
    hot.load()
    chance, each = np.random.default_rng(1), points // SERIES
    for number in range(blocks):
        first_ms = start_ms + number * each * 1000
        for at in range(0, SERIES, 10):
            rows = [
                (
                    {"__name__": "m", "i": str(at + row)},
                    [(first_ms + n * 1000, float(v)) for n, v in enumerate(chance.random(each))],
                )
                for row in range(10)
            ]
            given = (body(rows), "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY)
            assert acked(hot, hot.shard.receive(*given, first_ms).ticket)
        hot._worker.ask_seal(0)
        settle(hot)
    assert Offsite(store, place, last, CLOCK).push(hot.version())
    hot.shard.close()


def take(place: Path, far: FarAway, lazy: bool, ranges: list[tuple[int, int]]) -> None:
    began_s = time.perf_counter()
    later = is_lazy if lazy else lambda file: False
    last = take_shard(far, place, CLOCK, os.urandom, later, True)
    gone = [file for file in last.files if not (place / file.path).exists()]
    elsewhere = BlocksElsewhere(far, place / "cache/blocks", gone, 1 << 30)
    elsewhere.fetch_ends()
    hot = HotShard(elsewhere.disk(Disk.real(str(place))), OPTIONS, CONFIG, CLOCK)
    hot.load()
    words = f"{time.perf_counter() - began_s:6.2f} s, {far.requests:4} requests"
    words += f", {far.bytes / 1e6:6.1f} MB"
    for start_ms, end_ms in ranges:
        began_s = time.perf_counter()
        times = hot.shard.points("default", start_ms, end_ms)[2]
        words += f"; {len(times):8} points {time.perf_counter() - began_s:5.2f} s"
    print(f"{'lazily' if lazy else 'all first':9} {words}", flush=True)
    hot.shard.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--points", type=int, default=500_000)
    parser.add_argument("--delay-ms", type=float, default=20)
    given = parser.parse_args()
    start_ms = int(time.time() * 1000) - given.blocks * given.points // SERIES * 1000
    with tempfile.TemporaryDirectory(prefix="sluiceway-takeover-") as base:
        place = Path(base)
        store = EmbeddedObjects(place / "objects")
        (place / "one").mkdir()
        fill(place / "one", store, given.blocks, given.points, start_ms)
        held = sum(f.bytes for f in store.list("files"))
        print(f"{given.blocks} blocks, {held / 1e6:.0f} MB, {given.delay_ms} ms a request")
        step_ms = given.points // SERIES * 1000
        newest = (start_ms + (given.blocks - 1) * step_ms, 1 << 62)
        for number, lazy in enumerate((False, True, False, True)):
            directory = place / f"taker-{number}"
            directory.mkdir()
            far = FarAway(store, given.delay_ms / 1000)
            take(directory, far, lazy, [newest, (0, 1 << 62)])


if __name__ == "__main__":
    main()
