"""Where an import gathers points: a shard of its own in a work directory, read day by day.

Invariant: what `finish` returns after is in blocks, sorted, each series and time once; a day's
windows are made by the rollup's own kernel with the types that the source declared. Memory holds a
buffer and a slice.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Overloaded
from sluiceway.kernels import (
    ENCODING_SNAPPY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    merge_warm,
    remote_write_bodies,
    write_warm_windows,
)
from sluiceway.processor.hot_shard import HotShard
from sluiceway.rollup.interface import RollReport, WindowsReport
from sluiceway.tiers.frames import Frame
from sluiceway.tiers.hot import HotConfig, runs_of_days
from sluiceway.tiers.paths import DAY_MS

BODY_POINTS_MAX, BODY_BYTES_MAX = 50_000, 4 << 20
"""Of one body to the stage or to the server."""
SEAL_POINTS_MAX = 4_000_000
SLICE_MS_FIRST = 300_000
SLICE_POINTS = (500_000, 2_000_000)
"""A slice with fewer points lets the next be twice as long, one with more half as long."""
FULL_WAIT_S = 0.01
FINISH_S_MAX = 600.0
MINUTE_MS = 60_000
Bodies = list[tuple[bytes, int]]


class Stage:
    """The points of one tenant in `work`, which nobody else uses. One thread."""

    def __init__(
        self, work: Path, tenant: str, clock: Clock, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Raises: BackendUnavailable (another import works there), Corruption, OSError."""
        work.mkdir(parents=True, exist_ok=True)
        self._disk = Disk.real(str(work))
        self._disk.lock()
        self._work, self._tenant, self._clock, self._sleep = work, tenant, clock, sleep
        config = HotConfig(seal_points_max=SEAL_POINTS_MAX)
        self._hot = HotShard(self._disk, {"hash_seed": secrets.randbits(63)}, config, clock)
        self._failed: list[Exception] = []
        self._hot.start(self._failed.append)
        self._parts: dict[tuple[int, int], list[str]] = {}
        """Files of windows that came as such, by window length and day."""
        self._ticket, self._decided = -1, 0
        """Of the record that was taken last; all before it are durable."""
        self.received = 0
        self.rejected: dict[str, int] = {}

    def take(self, bodies: Bodies) -> None:
        """Gather remote write bodies in snappy. Blocks. Raises: TenantFault, BackendUnavailable."""
        for body, _ in bodies:
            receipt = None
            while receipt is None:
                if self._failed:
                    raise BackendUnavailable(f"the work directory: {self._failed[0]}")
                try:
                    receipt = self._hot.shard.receive(
                        body,
                        self._tenant,
                        FORMAT_REMOTE_WRITE_1,
                        ENCODING_SNAPPY,
                        self._clock.now_ms(),
                    )
                except Overloaded:
                    self._hear()
                    self._sleep(FULL_WAIT_S)
            self._ticket = receipt.ticket
            self.received += receipt.points_received
            for reason, count in receipt.rejected:
                self.rejected[reason] = self.rejected.get(reason, 0) + count
            self._hear()

    def _hear(self) -> None:
        """Which records are durable by now. Raises: BackendUnavailable."""
        self._decided, failures = self._hot.shard.drain_acks()
        for _, _, error in failures:
            raise BackendUnavailable(f"the work directory: {error}")

    def take_windows(self, frame: Frame) -> None:
        """Keep windows of an export, of one day, as a file. Raises: TenantFault, OSError."""
        header = frame.header
        window_ms, ends = header["window_ms"], frame.columns["end_ms"]
        day_ms = int((ends.min() - 1) // DAY_MS * DAY_MS)
        parts = self._parts.setdefault((window_ms, day_ms), [])
        path = f"windows/{window_ms}-{day_ms}-{len(parts)}.swm"
        self._disk.create_directory("windows")
        (self._work / path).unlink(missing_ok=True)  # of an import that was cut off
        assert frame.labels is not None, "windows have labels"
        columns, marks = frame.window_columns(), frame.columns["marks"]
        taken = header["taken"]
        write_warm_windows(
            self._disk, path, self._tenant, window_ms, frame.labels, columns, marks, taken
        )
        parts.append(path)

    def finish(self) -> None:
        """All that was taken is in blocks that do not overlap. Blocks. Raises:
        BackendUnavailable."""
        while self._decided <= self._ticket:
            self._sleep(FULL_WAIT_S)
            self._hear()
        self._hot.flush(True, FINISH_S_MAX)

    def held(self) -> int:
        """Points in the blocks, stale markers counted: each series and time once."""
        return sum(block.points for block in self._hot.version().blocks)

    def days(self) -> list[int]:
        """Beginnings of the days (midnight, midnight + 24 h] that may have points."""
        runs = runs_of_days(self._hot.version().blocks)
        return [day * DAY_MS for first, last in runs for day in range(first - 1, last + 1)]

    def roll(self, day_ms: int) -> tuple[Path, RollReport] | None:
        """The day's points as a file of windows; None where it has none. Blocks."""
        path = f"day-{day_ms}.swm"
        (self._work / path).unlink(missing_ok=True)
        request = {
            "tenant": self._tenant,
            "from_ms": day_ms,
            "until_ms": day_ms + DAY_MS,
            "window_ms": MINUTE_MS,
            "path": path,
        }
        text = self._hot.shard.roll(msgspec.json.encode(request).decode())
        report = msgspec.json.decode(text, type=RollReport)
        if report.windows:
            return self._work / path, report
        (self._work / path).unlink()
        return None

    def windows(self) -> Iterator[tuple[int, int, Path, tuple[int, int, int]]]:
        """(window length, day, file, its series, windows and points) of windows that came as such,
        days ascending."""
        for (window_ms, day_ms), parts in sorted(self._parts.items(), key=lambda kv: kv[0][1]):
            path = f"windows/{window_ms}-{day_ms}.swm"
            (self._work / path).unlink(missing_ok=True)
            whole = [[day_ms, day_ms + DAY_MS]]
            told = [{"path": part, "owned_ms": whole} for part in parts]
            request: dict[str, object] = {"tenant": self._tenant, "window_ms": window_ms}
            request["path"] = path
            request["parts"] = told
            text = merge_warm(self._disk, msgspec.json.encode(request).decode())
            file = msgspec.json.decode(text, type=WindowsReport)
            counts = (file.series, file.windows, file.points)
            yield window_ms, day_ms, self._work / path, counts

    def bodies_after(self, from_ms: int) -> Iterator[tuple[bytes, int]]:
        """Points later than `from_ms` as bodies, the oldest first."""
        blocks = [block for block in self._hot.version().blocks if block.max_ms > from_ms]
        if not blocks:
            return
        at_ms = max(from_ms, min(block.min_ms for block in blocks) - 1)
        until_ms, span_ms = max(block.max_ms for block in blocks), SLICE_MS_FIRST
        while at_ms < until_ms:
            end_ms = min(at_ms + span_ms, until_ms)
            points = self._hot.shard.points(self._tenant, at_ms + 1, end_ms + 1)
            labels, offsets, times, values = points
            starts = offsets.astype(np.int64)
            limits = (BODY_POINTS_MAX, BODY_BYTES_MAX)
            yield from remote_write_bodies(labels, starts, times, values, *limits)
            few, many = SLICE_POINTS
            if len(values) < few:
                span_ms = min(span_ms * 2, DAY_MS)
            elif len(values) > many:
                span_ms = max(span_ms // 2, 1_000)
            at_ms = end_ms

    def close(self) -> None:
        self._hot.stop(FINISH_S_MAX)
