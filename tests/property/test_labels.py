"""LabelTable and the JSON kernels against short Python oracles over dictionaries."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.errors import Corruption, TenantFault
from sluiceway.kernels import LabelTable, format_float, write_matrix, write_series, write_vector

Labels = dict[str, str]
NAMES = ["__name__", "a", "b", "job", "le", "ä"]
names = st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=4)
values = st.sampled_from(["", "1", "2", "up", "x" * 200, 'quote"\\\n\x01é😀'])
label_sets = st.dictionaries(st.sampled_from(NAMES), values, max_size=6)
series = st.lists(label_sets, max_size=12)


def real(labels: Labels) -> Labels:
    return {name: value for name, value in labels.items() if value}


def signature(labels: Labels, names: list[str], by: bool) -> tuple[tuple[str, str], ...]:
    dropped = {*names, "__name__"}
    kept = {n: v for n, v in labels.items() if (n in names if by else n not in dropped)}
    return tuple(sorted(real(kept).items()))


def numbered(keys: list[Any]) -> list[int]:
    seen: dict[Any, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


def bytewise(labels: Labels) -> list[tuple[bytes, bytes]]:
    return sorted((n.encode(), v.encode()) for n, v in real(labels).items())


def tables_of(sets: list[Labels]) -> list[LabelTable]:
    """The same table, made in ways that differ inside."""
    table = LabelTable.from_lists(sets)
    half = len(sets) // 2
    halves = [LabelTable.from_lists(sets[:half]), LabelTable.from_lists(sets[half:])]
    padded = LabelTable.from_lists([{"other": "z"}, *sets])
    return [
        table,
        LabelTable.concat(halves),
        padded.take(np.arange(1, len(sets) + 1)),
        LabelTable.from_bytes(padded.take(np.arange(1, len(sets) + 1)).to_bytes()),
    ]


@given(series)
def test_lists_bytes_and_pieces_agree(sets: list[Labels]) -> None:
    for table in tables_of(sets):
        assert len(table) == len(sets)
        assert table.to_list() == [real(labels) for labels in sets]
        assert table.names() == sorted({n for s in sets for n in real(s)}, key=str.encode)
        for name in [*NAMES, "unknown"]:
            assert table.values_of(name) == [labels.get(name, "") for labels in sets]
            codes, strings = table.codes_of(name)
            assert [strings[c] for c in codes] == [labels.get(name, "") for labels in sets]
            assert codes.tolist() == numbered([labels.get(name, "") for labels in sets])


@given(series, names, st.booleans())
def test_group(sets: list[Labels], by: list[str], without: bool) -> None:
    for table in tables_of(sets):
        groups, labels = table.group(by, without)
        keys = [signature(s, by, not without) for s in sets]
        assert groups.tolist() == numbered(keys)
        assert [tuple(sorted(g.items())) for g in labels.to_list()] == list(dict.fromkeys(keys))


@given(series, series, names, st.booleans())
def test_match_with(left: list[Labels], right: list[Labels], on: list[str], by: bool) -> None:
    keys = [signature(s, on, by) for s in left + right]
    both = numbered(keys)
    shared = LabelTable.from_lists(left + right)
    split = np.arange(len(left)), np.arange(len(left), len(left) + len(right))
    pairs = [(LabelTable.from_lists(left), LabelTable.from_lists(right))]
    pairs.append((shared.take(split[0]), shared.take(split[1])))
    for ours, theirs in pairs:
        left_ids, right_ids, count = ours.match_with(theirs, on, by)
        assert left_ids.tolist() + right_ids.tolist() == both
        assert count == len(set(both))


@given(series)
def test_order_and_duplicates(sets: list[Labels]) -> None:
    for table in tables_of(sets):
        order = table.sort_order().tolist()
        assert order == sorted(range(len(sets)), key=lambda i: (bytewise(sets[i]), i))
        ids = numbered([tuple(sorted(real(s).items())) for s in sets])
        assert table.dedup_ids().tolist() == ids
        duplicate = next((i for i, n in enumerate(ids) if n in ids[:i]), None)
        assert table.first_duplicate() == duplicate


@given(series, names, values, st.data())
def test_edits(sets: list[Labels], chosen: list[str], value: str, data: st.DataObject) -> None:
    column = data.draw(st.lists(values, min_size=len(sets), max_size=len(sets)))
    index = data.draw(st.lists(st.integers(0, max(0, len(sets) - 1)), max_size=len(sets)))

    def check(table: LabelTable, change: Callable[[int, Labels], Labels]) -> None:
        assert table.to_list() == [real(change(i, s)) for i, s in enumerate(sets)]

    for table in tables_of(sets):
        check(table.drop(chosen), lambda _, s: {n: v for n, v in s.items() if n not in chosen})
        check(table.keep(chosen), lambda _, s: {n: v for n, v in s.items() if n in chosen})
        check(table.set_label("b", value), lambda _, s: {**s, "b": value})
        check(table.with_values("new", column), lambda i, s: {**s, "new": column[i]})
        joined = table.join("j", "-", chosen)
        check(joined, lambda _, s: {**s, "j": "-".join(s.get(n, "") for n in chosen)})
        picked = table.take(np.array(index if sets else [], dtype=np.int64))
        assert picked.to_list() == [real(sets[i]) for i in (index if sets else [])]


@given(series.filter(bool), series.filter(bool), names, st.data())
def test_copy_labels(
    sets: list[Labels], other: list[Labels], chosen: list[str], data: st.DataObject
) -> None:
    picks = st.lists(st.integers(0, len(other) - 1), min_size=len(sets), max_size=len(sets))
    index = data.draw(picks)
    table = LabelTable.from_lists(sets)
    copied = table.copy_labels(LabelTable.from_lists(other), np.array(index), chosen)
    expected = [
        real({**labels, **{n: other[i].get(n, "") for n in chosen}})
        for labels, i in zip(sets, index, strict=True)
    ]
    assert copied.to_list() == expected


@pytest.mark.parametrize(
    ("replacement", "regex", "python"),
    [
        ("$1-$2", "(.*):(.*)", r"\1-\2"),
        ("${host}x", "(?P<host>[^:]+):.*", r"\g<host>x"),
        ("", "web.*", ""),
        ("fixed", ".*", "fixed"),
        ("$3", "(a)(b)?", ""),
    ],
)
def test_replace(replacement: str, regex: str, python: str) -> None:
    sets = [{"instance": "web:80"}, {"instance": "db"}, {"a": "1"}, {"instance": "web:80"}]
    table = LabelTable.from_lists(sets).replace("host", replacement, "instance", regex)
    expected = []
    for labels in sets:
        found = re.fullmatch(regex, labels.get("instance", ""))
        expected.append(real({**labels, "host": found.expand(python)}) if found else labels)
    assert table.to_list() == expected


def test_a_bad_expression_is_the_clients_fault() -> None:
    with pytest.raises(TenantFault) as fault:
        LabelTable.from_lists([{"a": "b"}]).replace("a", "", "a", "(")
    assert fault.value.status == 400


def test_damaged_bytes_are_corruption() -> None:
    data = LabelTable.from_lists([{"a": "1", "b": "2"}, {"a": "1"}]).to_bytes()
    for at in range(len(data)):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]):
            with pytest.raises(Corruption):
                LabelTable.from_bytes(damaged)


floats = st.floats() | st.integers(-(10**12), 10**12).map(lambda n: n / 100)


@given(floats)
def test_floats_read_back(value: float) -> None:
    text = format_float(value)
    assert "e" not in text.lower() or value in (math.inf, -math.inf)
    back = float(text)
    assert back == value or (math.isnan(back) and math.isnan(value))
    assert len(text.lstrip("-").replace(".", "").strip("0")) <= 17 or not math.isfinite(value)


@given(series, st.integers(0, 5), st.data())
def test_matrix(sets: list[Labels], steps: int, data: st.DataObject) -> None:
    cells = len(sets) * steps
    numbers = data.draw(st.lists(floats, min_size=cells, max_size=cells))
    there = data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    grid = np.array(numbers, dtype=np.float64).reshape(len(sets), steps)
    present = np.array(there, dtype=np.bool_).reshape(len(sets), steps)
    table = LabelTable.from_lists(sets)
    expected = [
        {
            "metric": real(labels),
            "values": [
                [(1_000 + t * 1_500) / 1_000, format_float(grid[i, t])]
                for t in range(steps)
                if present[i, t]
            ],
        }
        for i, labels in enumerate(sets)
        if present[i].any()
    ]
    assert json.loads(write_matrix(table, grid, present, 1_000, 1_500)) == expected
    assert json.loads(write_matrix(table, grid.T.copy().T, present, 1_000, 1_500)) == expected


@given(series)
def test_vector_and_series(sets: list[Labels]) -> None:
    table = LabelTable.from_lists(sets)
    numbers = np.arange(len(sets)) / 4
    vector = json.loads(write_vector(table, numbers, -1_500))
    assert vector == [
        {"metric": real(s), "value": [-1.5, format_float(i / 4)]} for i, s in enumerate(sets)
    ]
    assert json.loads(write_series(table)) == [real(labels) for labels in sets]
