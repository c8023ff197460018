"""Blocks against a dictionary: every float comes back to the bit, merges keep the newest."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import Disk, merge_blocks, read_block, write_block

Key = tuple[int, int, int]
# Values as bits: NaNs have payloads, and -0.0 is not 0.0.
Points = dict[tuple[Key, int], int]

keys = st.tuples(
    st.integers(0, 1), st.integers(0, 2), st.integers(0, 2**32 - 1) | st.integers(0, 9)
)
times = st.integers(-50, 50).map(lambda i: i * 15_000) | st.integers(-(2**63), 2**63 - 1)
SPECIAL = [0x7FF0000000000002, 0x7FF8000000000001, 1 << 63, 0x7FF << 52, 0xFFF << 52, 1, 2**64 - 1]


def bits(value: float) -> int:
    return int(np.float64(value).view(np.uint64))


values = (
    st.integers(-1000, 1000).map(bits)
    | st.decimals(-1000, 1000, places=3).map(lambda d: bits(float(d)))
    | st.sampled_from(SPECIAL)
    | st.integers(0, 2**64 - 1)
)
points = st.dictionaries(st.tuples(keys, times), values, max_size=80)


def columns(points: Points) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    series = sorted({key for key, _ in points})
    rows = sorted(points)
    counts = [sum(key == one for key, _ in rows) for one in series]
    return (
        np.array(series, np.uint32).reshape(-1, 3),
        np.cumsum([0, *counts], dtype=np.int64),
        np.array([time for _, time in rows], np.int64),
        np.array([points[row] for row in rows], np.uint64).view(np.float64),
    )


def mapping(keys: Any, offsets: Any, times: Any, values: Any) -> Points:
    owners = np.repeat(np.arange(len(keys)), np.diff(offsets))
    return {
        (tuple(keys[owner].tolist()), int(time)): int(value)
        for owner, time, value in zip(owners, times, values.view(np.uint64), strict=True)
    }


@given(points, st.booleans(), st.integers(1, 50), times, times, st.sets(keys, max_size=5))
def test_a_block_comes_back_to_the_bit(
    points: Points, dense: bool, page: int, start: int, end: int, others: set[Key]
) -> None:
    disk = Disk.memory()
    meta = write_block(disk, "b", *columns(points), dense=dense, page_points_max=page)
    assert meta["points"] == len(points)
    assert meta["series"] == len({key for key, _ in points})
    if points:
        assert meta["min_ms"] == min(time for _, time in points)
        assert meta["max_ms"] == max(time for _, time in points)
    assert mapping(*read_block(disk, "b")) == points
    asked = sorted({key for key, _ in points if key[2] % 2} | others)
    some = np.array(asked, np.uint32).reshape(-1, 3)
    expected = {
        (key, time): value
        for (key, time), value in points.items()
        if key in asked and start <= time < end
    }
    assert mapping(*read_block(disk, "b", some, start, end)) == expected


@given(st.lists(points, min_size=1, max_size=4), st.sets(times, max_size=3), st.booleans())
def test_a_merge_keeps_the_newest_and_cuts_by_time(
    inputs: list[Points], cuts: set[int], dense: bool
) -> None:
    disk = Disk.memory()
    expected: Points = {}
    for number, points in enumerate(inputs):
        write_block(disk, f"in{number}", *columns(points))
        expected |= points
    names = [f"in{number}" for number in range(len(inputs))]
    paths = [f"out{number}" for number in range(len(cuts) + 1)]
    outputs, superseded = merge_blocks(disk, names, sorted(cuts), paths, dense)
    assert superseded == sum(map(len, inputs)) - len(expected)
    merged: Points = {}
    for meta in outputs:
        merged |= mapping(*read_block(disk, meta["path"]))
        part = paths.index(meta["path"])
        assert sum(cut <= meta["min_ms"] for cut in cuts) == part
        assert sum(cut <= meta["max_ms"] for cut in cuts) == part
    assert merged == expected


def test_disorder_is_refused() -> None:
    key = np.zeros((1, 3), np.uint32)
    two = np.array([0, 2], np.int64)
    for times in ([5, 5], [6, 5]):
        with pytest.raises(BackendUnavailable):
            write_block(Disk.memory(), "b", key, two, np.array(times, np.int64), np.zeros(2))


def test_damage_is_corruption() -> None:
    disk = Disk.memory()
    write_block(disk, "b", *columns({((0, 0, row), t): t for row in range(9) for t in range(40)}))
    whole = disk.read("b")
    for bit in range(0, len(whole) * 8, 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        disk.write_new(f"d{bit}", bytes(damaged))
        with pytest.raises(Corruption):
            read_block(disk, f"d{bit}")
