"""Binary operators between vectors: which series meet, and what labels the result has.

Series of both sides are numbered by the labels they match on, once for all steps; pairs of rows
that share a number are then computed as columns. Invariant: presence decides step by step, so two
series may share a number as long as they are never present at once on a side that must be unique.
"""

import numpy as np

from sluiceway.kernels import LabelTable
from sluiceway.query.interface import Bools, Times
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.faults import ExecutionFault
from sluiceway.query.promql.operators import ARITHMETIC, COMPARE
from sluiceway.query.promql.syntax import COMPARISONS, Binary, Matching
from sluiceway.query.promql.values import (
    RESERVED_LABELS,
    Vector,
    any_present,
    count_present,
    empty_vector,
    merge_equal_series,
)

_MANY_TO_ONE = (
    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
)
_NOT_UNIQUE = "multiple matches for labels: grouping labels must ensure unique matches"


def set_operation(
    operator: str, left: Vector, right: Vector, matching: Matching, bounds: Bounds
) -> Vector:
    """`and`, `or`, `unless`."""
    if operator == "or":
        if not left.series_count:
            return right
        if not right.series_count:
            return left
    elif not left.series_count or (operator == "and" and not right.series_count):
        return empty_vector(left.present.shape[1])
    elif not right.series_count:
        return left
    ids_left, ids_right, count = _signatures(left, right, matching)
    if operator == "or":
        beside = right.present & ~any_present(left.present, ids_left, count)[ids_right]
        return _union(left, right.filtered(beside).without_absent_series(), bounds)
    met = any_present(right.present, ids_right, count)[ids_left]
    return left.filtered(left.present & (met if operator == "and" else ~met))


def _union(left: Vector, right: Vector, bounds: Bounds) -> Vector:
    if not right.series_count:
        return left
    bounds.allow(left.series_count + right.series_count, left.present.shape[1], "a set operator")
    joined = Vector(
        LabelTable.concat([left.labels, right.labels]),
        np.concatenate([left.values, right.values]),
        np.concatenate([left.present, right.present]),
        np.concatenate([left.drop_name, right.drop_name]),
    )
    return merge_equal_series(joined)


def _signatures(left: Vector, right: Vector, matching: Matching) -> tuple[Times, Times, int]:
    ids_left, ids_right, count = left.labels.match_with(right.labels, matching.labels, matching.on)
    return ids_left.astype(np.int64), ids_right.astype(np.int64), count


def vector_with_vector(node: Binary, left: Vector, right: Vector, bounds: Bounds) -> Vector:
    """Arithmetic or comparison of two vectors. Raises: ExecutionFault."""
    matching = node.matching
    if matching.fill_left is not None or matching.fill_right is not None:
        left, right = _filled(left, right, matching, bounds)
    if not left.series_count or not right.series_count:
        return empty_vector(left.present.shape[1])
    ids_left, ids_right, count = _signatures(left, right, matching)
    if matching.group == "right":
        return _pair_up(node, right, left, ids_right, ids_left, count, True, bounds)
    return _pair_up(node, left, right, ids_left, ids_right, count, False, bounds)


def _pair_up(
    node: Binary,
    many: Vector,
    one: Vector,
    ids_many: Times,
    ids_one: Times,
    count: int,
    swapped: bool,
    bounds: Bounds,
) -> Vector:
    """Compute every pair of rows; `one` is the side whose groups must be unique at each step."""
    matching = node.matching
    _check_unique(many, one, ids_one, count, matching, swapped)
    rows_many, rows_one = _pairs(ids_many, ids_one, many.present.shape[1], bounds)
    if not len(rows_many):
        return empty_vector(many.present.shape[1])
    present = many.present[rows_many] & one.present[rows_one]
    groups_repeat = bool(np.bincount(ids_many[rows_many]).max() > 1)
    if not matching.group and groups_repeat:
        met = count_present(present, ids_many[rows_many], count)
        if (met > 1).any():
            raise ExecutionFault(_MANY_TO_ONE)
    bounds.check_time()
    values_many, values_one = many.values[rows_many], one.values[rows_one]
    left, right = (values_one, values_many) if swapped else (values_many, values_one)
    comparison = node.operator in COMPARISONS
    drop_name = many.drop_name[rows_many]
    if not comparison:
        values = ARITHMETIC[node.operator](left, right)
    else:
        held = COMPARE[node.operator](left, right)
        if node.return_bool:
            values = held.astype(np.float64)
            drop_name = np.ones(len(rows_many), dtype=bool)
        else:
            # The sample of the left side stays, whichever side that is.
            values = left
            present &= held
    bounds.check_time()
    labels = many.labels.take(rows_many)
    if not comparison:
        labels = labels.drop(RESERVED_LABELS)
        drop_name = np.zeros(len(rows_many), dtype=bool)
    if not matching.group and matching.explicit:
        labels = labels.keep(matching.labels) if matching.on else labels.drop(matching.labels)
    if matching.include:
        labels = labels.copy_labels(one.labels, rows_one, matching.include)
    result = Vector(labels, values, present, drop_name)
    if not matching.group and not groups_repeat:
        return result
    try:
        return merge_equal_series(result)
    except ExecutionFault as fault:
        raise ExecutionFault(_NOT_UNIQUE) from fault


def _pairs(ids_many: Times, ids_one: Times, step_count: int, bounds: Bounds) -> tuple[Times, Times]:
    """Row numbers of all pairs with the same id, in the order of the many side."""
    order = np.argsort(ids_one, kind="stable")
    ordered = ids_one[order]
    starts = np.searchsorted(ordered, ids_many, "left")
    lengths = np.searchsorted(ordered, ids_many, "right") - starts
    total = int(lengths.sum())
    bounds.check_time()
    bounds.allow(total, step_count, "a binary operator")
    rows_many = np.repeat(np.arange(len(ids_many)), lengths)
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows_many, order[np.repeat(starts, lengths) + within]


def _check_unique(
    many: Vector, one: Vector, ids_one: Times, count: int, matching: Matching, swapped: bool
) -> None:
    if np.bincount(ids_one).max() <= 1:
        return
    crowded = count_present(one.present, ids_one, count) > 1
    # A step where the other side has no sample at all matches nothing, so nothing is wrong.
    crowded &= many.present.any(axis=0)
    if not crowded.any():
        return
    group, step = np.argwhere(crowded)[0]
    rows = np.flatnonzero((ids_one == group) & one.present[:, step])[:2]
    names = one.labels.take(rows).to_list()
    signature = {
        name: value
        for name, value in names[0].items()
        if (name in matching.labels) == matching.on and name != "__name__"
    }
    side = "left" if swapped else "right"
    raise ExecutionFault(
        f"found duplicate series for the match group {_braces(signature)} on the {side} hand-side"
        f" of the operation: [{_braces(names[0])}, {_braces(names[1])}];many-to-many matching not"
        " allowed: matching labels must be unique on one side"
    )


def _braces(labels: dict[str, str]) -> str:
    inside = ", ".join(
        '{}="{}"'.format(name, labels[name].replace("\\", "\\\\").replace('"', '\\"'))
        for name in sorted(labels)
    )
    return "{" + inside + "}"


def _filled(
    left: Vector, right: Vector, matching: Matching, bounds: Bounds
) -> tuple[Vector, Vector]:
    """Both sides, with the fill values standing in where the other side alone is present."""
    if left.series_count and right.series_count:
        ids_left, ids_right, count = _signatures(left, right, matching)
    else:
        ids_left = np.arange(left.series_count)
        ids_right = np.arange(right.series_count)
        count = left.series_count + right.series_count
    here = any_present(left.present, ids_left, count)
    there = any_present(right.present, ids_right, count)
    filled_left, filled_right = left, right
    if matching.fill_right is not None:
        lonely = here & ~there
        filled_right = _with_stand_ins(
            right, left, ids_left, lonely, matching.fill_right, matching, bounds
        )
    if matching.fill_left is not None:
        lonely = there & ~here
        filled_left = _with_stand_ins(
            left, right, ids_right, lonely, matching.fill_left, matching, bounds
        )
    return filled_left, filled_right


def _with_stand_ins(
    side: Vector,
    other: Vector,
    ids_other: Times,
    lonely: Bools,
    fill: float,
    matching: Matching,
    bounds: Bounds,
) -> Vector:
    """`side` and one series of `fill` for each group that only `other` has at some step."""
    groups, rows = np.unique(ids_other, return_index=True)
    needed = lonely[groups].any(axis=1)
    groups, rows = groups[needed], rows[needed]
    if not len(groups):
        return side
    labels = other.labels.take(rows).drop(RESERVED_LABELS)
    labels = labels.keep(matching.labels) if matching.on else labels.drop(matching.labels)
    present = lonely[groups]
    stand_in = Vector(
        labels, np.full(present.shape, fill), present, np.zeros(len(groups), dtype=bool)
    )
    return _union(side, stand_in, bounds) if side.series_count else stand_in
