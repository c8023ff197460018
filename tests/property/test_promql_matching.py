"""Vectorised matching, set operations and aggregations against a step-by-step oracle.

The oracle knows dictionaries only: one step, one sample at a time, as PromQL is defined."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.memory_reader import MemoryReader
from sluiceway.errors import TenantFault
from sluiceway.query.promql.engine import Engine

STEPS = 3
Labels = tuple[tuple[str, str], ...]
Sample = dict[Labels, float]


@st.composite
def series(draw: st.DrawFn, name: str) -> dict[Labels, list[float | None]]:
    found: dict[Labels, list[float | None]] = {}
    for _ in range(draw(st.integers(0, 4))):
        labels = {
            "__name__": name,
            "a": draw(st.sampled_from("xy")),
            "b": draw(st.sampled_from("12")),
        }
        value = st.one_of(st.none(), st.integers(-3, 3).map(float))
        key = tuple(sorted(labels.items()))
        found[key] = draw(st.lists(value, min_size=STEPS, max_size=STEPS))
    return found


def fill(reader: MemoryReader, data: dict[Labels, list[float | None]]) -> None:
    for labels, values in data.items():
        for step, value in enumerate(values):
            if value is not None:
                # Steps lie a look-back apart, so that each sees its own samples alone.
                reader.add(dict(labels), step * 600_000, value)


def at(data: dict[Labels, list[float | None]], step: int) -> Sample:
    return {labels: value for labels, values in data.items() if (value := values[step]) is not None}


def signature(labels: Labels, names: tuple[str, ...], on: bool) -> Labels:
    return tuple(
        (name, value) for name, value in labels if (name in names) == on and name != "__name__"
    )


def nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


def one_to_one(left: Sample, right: Sample, names: tuple[str, ...], on: bool) -> Sample | None:
    """left - right; None where it must fail."""
    if not left or not right:
        return {}
    rights: dict[Labels, float] = {}
    for labels, value in right.items():
        key = signature(labels, names, on)
        if key in rights:
            return None
        rights[key] = value
    result: Sample = {}
    for labels, value in left.items():
        key = signature(labels, names, on)
        if key in rights:
            if key in result:
                return None
            result[key] = value - rights[key]
    return result


def many_to_one(left: Sample, right: Sample, names: tuple[str, ...]) -> Sample | None:
    if not left or not right:
        return {}
    rights: dict[Labels, float] = {}
    for labels, value in right.items():
        key = signature(labels, names, True)
        if key in rights:
            return None
        rights[key] = value
    result: Sample = {}
    for labels, value in left.items():
        key = signature(labels, names, True)
        if key in rights:
            if nameless(labels) in result:
                return None
            result[nameless(labels)] = value - rights[key]
    return result


def set_operation(operator: str, left: Sample, right: Sample, names: tuple[str, ...]) -> Sample:
    lefts = {signature(labels, names, True) for labels in left}
    rights = {signature(labels, names, True) for labels in right}
    if operator == "or":
        beside = {k: v for k, v in right.items() if signature(k, names, True) not in lefts}
        return {**left, **beside}
    wanted = operator == "and"
    return {k: v for k, v in left.items() if (signature(k, names, True) in rights) == wanted}


def check(text: str, reader: MemoryReader, steps: list[Sample | None]) -> None:
    try:
        result = Engine(reader).query_range("default", text, 0, (STEPS - 1) * 600_000, 600_000)
    except TenantFault:
        assert None in steps, text
        return
    assert None not in steps, f"{text} answered"
    assert result.vector is not None
    labels = [tuple(sorted(one.items())) for one in result.vector.labels.to_list()]
    for step, wanted in enumerate(steps):
        present = result.vector.present[:, step]
        found = {
            labels[row]: float(result.vector.values[row, step]) for row in np.flatnonzero(present)
        }
        assert found == wanted, (text, step)


DATA = st.tuples(series("l"), series("r"))
NAMES = st.sampled_from([(), ("a",), ("b",), ("a", "b")])


@settings(max_examples=60, deadline=None)
@given(DATA, NAMES, st.booleans())
def test_one_to_one(data: tuple, names: tuple[str, ...], on: bool) -> None:
    left, right = data
    reader = MemoryReader()
    fill(reader, left)
    fill(reader, right)
    word = "on" if on else "ignoring"
    steps = [one_to_one(at(left, s), at(right, s), names, on) for s in range(STEPS)]
    check(f"l - {word}({', '.join(names)}) r", reader, steps)


@settings(max_examples=60, deadline=None)
@given(DATA, NAMES)
def test_many_to_one(data: tuple, names: tuple[str, ...]) -> None:
    left, right = data
    reader = MemoryReader()
    fill(reader, left)
    fill(reader, right)
    steps = [many_to_one(at(left, s), at(right, s), names) for s in range(STEPS)]
    check(f"l - on({', '.join(names)}) group_left() r", reader, steps)
    # The same turned round: signs apart, group_right says what group_left says.
    turned = [s and {labels: -value for labels, value in s.items()} for s in steps]
    check(f"r - on({', '.join(names)}) group_right() l", reader, turned)


@settings(max_examples=60, deadline=None)
@given(DATA, NAMES, st.sampled_from(["and", "or", "unless"]))
def test_set_operations(data: tuple, names: tuple[str, ...], operator: str) -> None:
    left, right = data
    reader = MemoryReader()
    fill(reader, left)
    fill(reader, right)
    steps = [set_operation(operator, at(left, s), at(right, s), names) for s in range(STEPS)]
    check(f"l {operator} on({', '.join(names)}) r", reader, list(steps))


@settings(max_examples=60, deadline=None)
@given(series("l"), st.integers(0, 3), st.booleans(), NAMES)
def test_first_rows(
    data: dict[Labels, list[float | None]], count: int, largest: bool, names: tuple[str, ...]
) -> None:
    reader = MemoryReader()
    fill(reader, data)
    operator = "topk" if largest else "bottomk"
    text = f"{operator} by ({', '.join(names)}) ({count}, l)"
    result = Engine(reader).query_range("default", text, 0, (STEPS - 1) * 600_000, 600_000)
    assert result.vector is not None
    labels = [tuple(sorted(one.items())) for one in result.vector.labels.to_list()]
    for step in range(STEPS):
        groups: dict[Labels, list[float]] = {}
        for key, value in at(data, step).items():
            groups.setdefault(signature(key, names, True), []).append(value)
        chosen: dict[Labels, list[float]] = {}
        for row in np.flatnonzero(result.vector.present[:, step]):
            group = signature(labels[row], names, True)
            chosen.setdefault(group, []).append(float(result.vector.values[row, step]))
        for group, values in groups.items():
            wanted = sorted(values, reverse=largest)[:count]
            assert sorted(chosen.get(group, []), reverse=largest) == wanted


@settings(max_examples=60, deadline=None)
@given(series("l"), st.floats(0, 1), NAMES)
def test_quantile(
    data: dict[Labels, list[float | None]], fraction: float, names: tuple[str, ...]
) -> None:
    reader = MemoryReader()
    fill(reader, data)
    text = f"quantile by ({', '.join(names)}) ({fraction!r}, l)"
    result = Engine(reader).query_range("default", text, 0, (STEPS - 1) * 600_000, 600_000)
    assert result.vector is not None
    labels = [tuple(sorted(one.items())) for one in result.vector.labels.to_list()]
    for step in range(STEPS):
        groups: dict[Labels, list[float]] = {}
        for key, value in at(data, step).items():
            groups.setdefault(signature(key, names, True), []).append(value)
        for group, values in groups.items():
            row = labels.index(group)
            found = float(result.vector.values[row, step])
            assert math.isclose(found, float(np.quantile(values, fraction)), abs_tol=1e-9)
