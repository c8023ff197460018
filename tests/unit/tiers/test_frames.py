"""Frames of an export: what is written is read, what is cut or changed is told."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.errors import Corruption
from sluiceway.kernels import LabelTable
from sluiceway.tiers.frames import (
    WINDOW_COLUMNS,
    plain_frame,
    points_frame,
    read_frames,
    windows_frame,
)


def table(count: int) -> LabelTable:
    return LabelTable.from_lists([{"__name__": "m", "i": str(i)} for i in range(count)])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(-(2**62), 2**62), st.floats(width=64)), max_size=4),
        max_size=5,
    )
)
def test_points_come_back_to_the_bit(series: list[list[tuple[int, float]]]) -> None:
    offsets = np.cumsum([0, *(len(own) for own in series)]).astype(np.int64)
    times = np.array([t for own in series for t, _ in own], dtype=np.int64)
    values = np.array([v for own in series for _, v in own], dtype=np.float64)
    labels = table(len(series))
    data = points_frame(labels, offsets, times, values, 5, 9)
    [packed] = read_frames(io.BytesIO(data))
    frame = packed.unpack()
    assert packed.data == data
    assert frame.header["points"] == len(times) and frame.header["series"] == len(series)
    assert frame.labels is not None and frame.labels.to_list() == labels.to_list()
    assert np.array_equal(frame.columns["offsets"], offsets)
    assert np.array_equal(frame.columns["times_ms"], times)
    assert np.array_equal(frame.columns["values"].view(np.uint64), values.view(np.uint64))


def windows() -> bytes:
    columns: dict[str, Any] = {"offsets": np.array([0, 2], dtype=np.int64)}
    columns["kinds"] = np.array([1], dtype=np.uint8)
    for name, kind in WINDOW_COLUMNS.items():
        wide = {"u8": np.bool_, "u32": np.uint32, "f64": np.float64}.get(kind, np.int64)
        columns[name] = np.array([1, 0], dtype=wide)
    header = {"tier": "warm", "window_ms": 60_000, "taken": ["pod"], "from_ms": 0, "until_ms": 1}
    return windows_frame(table(1), columns, np.array([7], dtype=np.uint8), header)


def test_windows_come_back() -> None:
    [packed] = read_frames(io.BytesIO(windows()))
    frame = packed.unpack()
    assert frame.header["windows"] == 2 and frame.header["points"] == 1
    taken = frame.window_columns()
    assert taken["ends_stale"].dtype == np.bool_ and taken["count"].dtype == np.uint32
    assert [taken[name].tolist() for name in WINDOW_COLUMNS] == [[1, 0]] * len(WINDOW_COLUMNS)
    assert frame.columns["marks"].tolist() == [7]


def test_damage_is_found() -> None:
    data = plain_frame("head", {"tenant": "t"}) + windows()
    assert [f.kind for f in read_frames(io.BytesIO(data))] == ["head", "windows"]
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 0x40
        with pytest.raises(Corruption):
            for packed in read_frames(io.BytesIO(bytes(broken))):
                packed.unpack()
    for cut in (1, 20, len(data) - 1):
        with pytest.raises(Corruption):
            list(read_frames(io.BytesIO(data[:cut])))
