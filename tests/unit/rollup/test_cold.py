"""A day of minutes becomes cold objects: the hours are what the points say."""

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np

from sluiceway.kernels import ColdFile, Disk, LabelTable, write_warm_file
from sluiceway.rollup.cold import ColdObjects
from sluiceway.tiers.catalog import TierFile
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

COUNTER, GAUGE = 1, 2
MINUTE_MS = 60_000


def points(seed: int) -> list[tuple[int, float]]:
    draw = random.Random(seed)
    times = sorted(draw.sample(range(1, DAY_MS + 1), 3_000))
    return [(time_ms, float(draw.randrange(1000))) for time_ms in times]


def hours(raw: list[tuple[int, float]]) -> dict[int, list[float]]:
    """Values by the end of their hour."""
    found: dict[int, list[float]] = {}
    for time_ms, value in raw:
        found.setdefault(-(-time_ms // HOUR_MS) * HOUR_MS, []).append(value)
    return found


def dropped(values: list[float]) -> float:
    return sum(before for before, after in pairwise(values) if after < before)


def test_the_hours_are_what_the_points_say(tmp_path: Path) -> None:
    disk = Disk.real(str(tmp_path))
    raw = [points(seed) for seed in range(4)]
    labels = LabelTable.from_lists([{"__name__": f"m{i // 2}", "i": str(i)} for i in range(4)])
    kinds = [GAUGE, COUNTER, GAUGE, COUNTER]
    flat = [point for series in raw for point in series]
    report = json.loads(
        write_warm_file(
            disk,
            "day.swm",
            "acme",
            MINUTE_MS,
            labels,
            np.array(kinds, np.uint8),
            np.cumsum([0] + [len(series) for series in raw]).astype(np.int64),
            np.array([time_ms for time_ms, _ in flat], np.int64),
            np.array([value for _, value in flat]),
        )
    )
    warm = TierFile(
        tier="warm",
        path="day.swm",
        bytes=report["bytes"],
        crc32=report["crc32"],
        tenant="acme",
        from_ms=0,
        until_ms=DAY_MS,
        number=1,
        window_ms=MINUTE_MS,
        series=4,
        windows=report["windows"],
        points=len(flat),
        through_sequence=77,
    )
    (made,) = ColdObjects(disk)("acme", 0, warm, 2)
    assert (made.metric, made.number, made.through_sequence) == (None, 2, 77)
    assert (made.points, made.series) == (len(flat), 4)
    assert made.path.startswith("tiers/cold/tenant=acme/metric=~small/year=1970/month=01/")
    file = ColdFile(disk, made.path)
    read = file.read(np.arange(4, dtype=np.uint32), 0, DAY_MS + 1)
    assert file.labels(np.arange(4, dtype=np.uint32)).values_of("i") == ["0", "1", "2", "3"]
    for number, series in enumerate(raw):
        rows = range(read["offsets"][number], read["offsets"][number + 1])
        expected = hours(series)
        assert [int(read["end_ms"][at]) for at in rows] == sorted(expected)
        for at in rows:
            values = expected[int(read["end_ms"][at])]
            assert read["count"][at] == len(values)
            assert (read["first"][at], read["last"][at]) == (values[0], values[-1])
            if kinds[number] == COUNTER:
                assert read["dropped"][at] == dropped(values)
            else:
                told = (read["sum"][at], read["minimum"][at], read["maximum"][at])
                assert told == (sum(values), min(values), max(values))
