"""What an import makes of points is, byte for byte, what the rollup would have made of them."""

import random
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import hot
from sluiceway.clock import ManualClock
from sluiceway.kernels import Disk, LabelTable, read_openmetrics, remote_write_bodies
from sluiceway.rollup.interface import RollReport
from sluiceway.services.transfer.stage import Stage

DAY_MS = 86_400_000
DAYS = (20_000, 20_001)
NAMES = ("a_total", "b", "c_bucket")
TYPES = {"a": "counter", "b": "gauge", "c": "histogram"}
STALE = np.uint64(0x7FF0000000000002).view(np.float64)

Histories = dict[tuple[str, int], dict[int, float]]
times = st.integers(DAYS[0] * DAY_MS + 1, (DAYS[-1] + 1) * DAY_MS)
near = st.integers(0, 400).map(lambda k: DAYS[0] * DAY_MS + k * 15_000 + 1)
values = st.one_of(
    st.integers(0, 1000).map(float), st.just(float(STALE)), st.floats(allow_nan=False, width=64)
)
histories = st.dictionaries(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 2)),
    st.dictionaries(st.one_of(near, times), values, min_size=1, max_size=25),
    min_size=1,
    max_size=6,
)


def bodies_of(of: Histories, points_max: int) -> list[tuple[bytes, int]]:
    labels = LabelTable.from_lists([{"__name__": n, "i": str(i)} for n, i in of])
    counts = [len(own) for own in of.values()]
    offsets = np.cumsum([0, *counts]).astype(np.int64)
    moments = np.array([t for own in of.values() for t in own], dtype=np.int64)
    held = np.array([v for own in of.values() for v in own.values()], dtype=np.float64)
    return remote_write_bodies(labels, offsets, moments, held, points_max, 1 << 20)


def declared(types: dict[str, str]) -> list[tuple[bytes, int]]:
    text = "".join(f"# TYPE {name} {kind}\n" for name, kind in types.items())
    return read_openmetrics(text.encode(), 1, 100, 1 << 20)[0]


def rolled_raw(of: Histories) -> dict[int, tuple[int, bytes]]:
    """By day: windows and the file that a rollup of a shard with these raw points makes."""
    disk = Disk.memory()
    shard = hot.opened(disk)
    for body, _ in [*declared(TYPES), *bodies_of(of, 1_000)]:
        receipt = shard.shard.receive(body, "default", 1, 1, (DAYS[-1] + 2) * DAY_MS)
        assert hot.acked(shard, receipt.ticket)
    hot.settle(shard)
    found = {}
    for day in DAYS:
        request = {"tenant": "default", "from_ms": day * DAY_MS, "until_ms": (day + 1) * DAY_MS}
        request |= {"window_ms": 60_000, "path": f"{day}.swm"}
        report = msgspec.json.decode(
            shard.shard.roll(msgspec.json.encode(request).decode()), type=RollReport
        )
        found[day * DAY_MS] = (report.windows, disk.read(f"{day}.swm"))
    shard.shard.close()
    return {day: told for day, told in found.items() if told[0]}


@settings(deadline=None, max_examples=25)
@given(histories, st.integers(1, 60), st.integers(0, 1 << 30))
def test_imported_points_are_the_rollups_windows(of: Histories, cut: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        clock = ManualClock((DAYS[-1] + 2) * DAY_MS)
        stage = Stage(Path(directory) / "work", "default", clock)
        try:
            bodies = bodies_of(of, cut)
            random.Random(seed).shuffle(bodies)
            stage.take(bodies)
            stage.take(declared(TYPES))  # Types may come late.
            stage.take(bodies[: len(bodies) // 2])  # And points twice.
            stage.finish()
            assert stage.held() == sum(len(own) for own in of.values())
            made = {}
            points = 0
            for day_ms in stage.days():
                rolled = stage.roll(day_ms)
                if rolled is not None:
                    path, report = rolled
                    made[day_ms] = (report.windows, path.read_bytes())
                    points += report.points + report.stale
            assert points == stage.held()
        finally:
            stage.close()
        assert made == rolled_raw(of)
