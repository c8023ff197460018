"""A directory with recorded hours: an explosion of series in hours that are over."""

import os
import subprocess
import sys
from pathlib import Path

from fakes.hot import acked
from fakes.remote_write import body
from sluiceway.clock import SystemClock
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1
from sluiceway.processor.hot_shard import HotShard
from sluiceway.serve.directory import open_disk
from sluiceway.tiers.hot import HotConfig

HOUR_MS = 3_600_000
HOURS, STEADY, EXPLODED = 3, 10, 40
METRIC = "requests_total"


def record_hours(directory: Path, now_ms: int) -> None:
    """The last `HOURS` hours before now: `STEADY` series in each, `EXPLODED` new ones in the last
    of them. In a process of its own, which lets the directory go."""
    path = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-m", "fakes.recorded", str(directory), str(now_ms)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)


def main(directory: str, now_ms: int) -> None:
    hot = HotShard(open_disk(Path(directory)), {}, HotConfig(), SystemClock())
    hot.load()
    for back in range(HOURS, 0, -1):
        at_ms = now_ms - back * HOUR_MS
        rows = [({"__name__": METRIC, "i": str(i)}, [(at_ms, 1.0)]) for i in range(STEADY)]
        if back == 1:
            rows += [
                ({"__name__": METRIC, "request_id": str(i)}, [(at_ms, 1.0), (at_ms + 1, 2.0)])
                for i in range(EXPLODED)
            ]
        ticket = hot.shard.receive(
            body(rows), "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, at_ms
        ).ticket
        assert acked(hot, ticket)
    while hot.step() == "applied":
        pass


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
