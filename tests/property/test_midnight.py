"""Folded counters over several midnights against an oracle of a few lines: what the folds of all
days grow by, files read one after the other, is what their members grew by, resets corrected."""

import json
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.kernels import ColdFile, Disk, LabelTable, make_cold, strip_warm_file
from sluiceway.kernels import write_warm_file as write

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
DAYS = 4
COUNTER = 1
Member = list[tuple[int, float]]
RULES = [{"matchers": [], "labels": ["pod"], "digits": 0}]


def times() -> st.SearchStrategy[int]:
    """Of four days, most of them around midnights."""
    anywhere = st.integers(1, DAYS * DAY_MS)
    around = st.builds(
        lambda day, off: max(1, day * DAY_MS + off),
        st.integers(0, DAYS - 1),
        st.integers(-HOUR_MS - 2, HOUR_MS),
    )
    return st.one_of(around, around, anywhere)


values = st.one_of(st.integers(0, 9), st.integers(0, 99_999)).map(float)
members_drawn = st.lists(
    st.dictionaries(times(), values, min_size=1, max_size=25).map(lambda d: sorted(d.items())),
    min_size=1,
    max_size=5,
)


def store(disk: Disk, path: str, members: list[Member], span: tuple[int, int], window: int) -> None:
    """The points within (start, end], each member that has some a series."""
    start_ms, end_ms = span
    held = {
        f"p{number}": points
        for number, member in enumerate(members)
        if (points := [point for point in member if start_ms < point[0] <= end_ms])
    }
    flat = [point for points in held.values() for point in points]
    write(
        disk,
        path,
        "t",
        window,
        LabelTable.from_lists([{"__name__": "hits_total", "pod": pod} for pod in held]),
        np.full(len(held), COUNTER, np.uint8),
        np.cumsum([0, *map(len, held.values())]).astype(np.int64),
        np.array([at for at, _ in flat], np.int64),
        np.array([value for _, value in flat], np.float64),
    )


def step(before: float, after: float) -> float:
    return after - before if after >= before else after


def grown(members: list[Member]) -> float:
    """Over a midnight only from a point of the day's last hour on."""
    total = 0.0
    for member in members:
        for (at, before), (later, after) in pairwise(member):
            midnight = (later - 1) // DAY_MS * DAY_MS
            if at > midnight - HOUR_MS:
                total += step(before, after)
    return total


def folded(disk: Disk, day: int) -> list[tuple[float, float, float]]:
    """(first, last, dropped) of the day's hours."""
    unit = {"directory": "cold", "tenant": "t", "window_ms": HOUR_MS, "number": 1}
    unit |= {"from_ms": day * DAY_MS, "until_ms": (day + 1) * DAY_MS}
    rows = []
    for report in json.loads(make_cold(disk, f"left{day}", json.dumps(unit))):
        file = ColdFile(disk, f"cold/{report['path']}")
        assert report["series"] == 1
        read = file.read(np.zeros(1, np.uint32), 0, 1 << 60)
        rows += list(zip(read["first"], read["last"], read["dropped"], strict=True))
    return [(float(first), float(last), float(dropped)) for first, last, dropped in rows]


@settings(max_examples=200, deadline=None)
@given(members_drawn)
def test_what_folds_grow_by_over_midnights_is_what_their_members_do(members: list[Member]) -> None:
    disk = Disk.memory()
    total, last_before = 0.0, None
    for day in range(DAYS):
        midnight = day * DAY_MS
        store(disk, f"day{day}", members, (midnight, midnight + DAY_MS), MINUTE_MS)
        store(disk, f"hour{day}", members, (midnight - HOUR_MS, midnight), HOUR_MS)
        request = json.dumps({"rules": RULES, "before": f"hour{day}"})
        strip_warm_file(disk, f"day{day}", f"left{day}", request)
        for first, last, dropped in folded(disk, day):
            # As every reader of counters does, the fold's own fall at midnight like any reset.
            total += last - first + dropped
            total += 0.0 if last_before is None else step(last_before, first)
            last_before = last
    assert total == grown(members)


def test_a_range_that_begins_at_midnight_has_the_growth_after_it_alone() -> None:
    disk = Disk.memory()
    member = [(at, float(at // 1_000)) for at in range(15_000, 2 * DAY_MS, 15_000)]
    store(disk, "day1", [member, member], (DAY_MS, 2 * DAY_MS), MINUTE_MS)
    store(disk, "hour1", [member, member], (DAY_MS - HOUR_MS, DAY_MS), HOUR_MS)
    strip_warm_file(disk, "day1", "left1", json.dumps({"rules": RULES, "before": "hour1"}))
    rows = folded(disk, 1)
    assert rows[0][0] == 2 * 15.0, "it grew by that from the day before"
    assert rows[-1][1] - rows[0][0] == 2 * (member[-1][1] - DAY_MS // 1_000 - 15)
