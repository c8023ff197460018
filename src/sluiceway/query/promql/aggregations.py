"""Aggregations over vectors that are already columns: grouped sums, extremes, orders, counts.

Invariant: groups are numbered once for all steps; a group is present at a step where one of its
series is. Selections that a shard can aggregate itself never come here (plan.py).
"""

import math
from collections.abc import Iterator

import numpy as np

from sluiceway.kernels import LabelTable, aggregate_columns
from sluiceway.query.interface import Bools, Floats, Times
from sluiceway.query.promql import orders
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.faults import ExecutionFault
from sluiceway.query.promql.values import Vector, empty_vector, format_value

# Distinct (group, value) pairs that count_values may make.
COUNT_VALUES_SERIES_MAX = 100_000


def _grouped(vector: Vector, grouping: list[str], without: bool) -> tuple[Times, LabelTable, Bools]:
    """Group numbers of the rows, the groups' labels, and which groups lose their name later."""
    numbers, labels = vector.labels.group(grouping, without)
    ids = numbers.astype(np.int64)
    drop_name = np.zeros(len(labels), dtype=bool)
    if not without and "__name__" in grouping:
        drop_name[ids[vector.drop_name]] = True
    return ids, labels, drop_name


def aggregate(
    operator: str,
    vector: Vector,
    grouping: list[str],
    without: bool,
    parameter: Floats | None,
    bounds: Bounds,
) -> Vector:
    """Any aggregation whose parameter is a scalar [T] or nothing. Raises: ExecutionFault."""
    if operator in ("topk", "bottomk", "limitk"):
        return _chosen_rows(vector, grouping, without, _counts(parameter), operator, bounds)
    vector = vector.without_absent_series()
    if not vector.series_count:
        return empty_vector(vector.present.shape[1])
    ids, labels, drop_name = _grouped(vector, grouping, without)
    if operator == "quantile":
        assert parameter is not None, "quantile has a parameter"
        values, present = orders.quantiles(vector, ids, len(labels), parameter, bounds)
    else:
        values, present = aggregate_columns(
            operator,
            ids.astype(np.uint32),
            len(labels),
            np.ascontiguousarray(vector.values),
            np.ascontiguousarray(vector.present),
        )
    return Vector(labels, values, present, drop_name)


def _counts(parameter: Floats | None) -> Times:
    """The parameter as whole numbers. Raises: ExecutionFault."""
    assert parameter is not None, "the aggregation has a parameter"
    if np.isnan(parameter).any():
        raise ExecutionFault("Parameter value is NaN")
    for value in (float(parameter.min()), float(parameter.max())):
        if value >= 2**63 or value <= -(2**63):
            word = "overflows" if value > 0 else "underflows"
            raise ExecutionFault(f"Scalar value {format_value(value)} {word} int64")
    return parameter.astype(np.int64)


def _chosen_rows(
    vector: Vector, grouping: list[str], without: bool, counts: Times, order: str, bounds: Bounds
) -> Vector:
    """topk, bottomk, limitk: whole series, present at the steps where they are chosen."""
    vector = vector.without_absent_series()
    if not vector.series_count:
        return empty_vector(vector.present.shape[1])
    ids, _, _ = _grouped(vector, grouping, without)
    if order == "topk":
        keys = -vector.values
    else:
        keys = vector.values if order == "bottomk" else np.zeros_like(vector.values)
    chosen = orders.first_rows(keys, vector.present, ids, counts, bounds)
    result = vector.filtered(chosen)
    if chosen.shape[1] == 1 and order != "limitk":
        # An instant answer comes in order of value, group after group.
        places = np.lexsort((keys[:, 0], np.isnan(keys[:, 0]), ids))
        return result.take(places[chosen[places, 0]])
    return result.without_absent_series()


def count_values(
    vector: Vector, grouping: list[str], without: bool, label: str, bounds: Bounds
) -> Vector:
    """How many series of each group have each value, the value told in `label`."""
    vector = vector.without_absent_series()
    step_count = vector.present.shape[1]
    if not vector.series_count:
        return empty_vector(step_count)
    # The label takes the value's place before the series are grouped.
    grouping = [name for name in grouping if name != label]
    if without:
        grouping.append(label)
    ids, labels, _ = _grouped(vector, grouping, without)
    bits = _distinct_values(vector, bounds)
    # Pairs of group and value: which there are, and how often each is met at each step.
    pairs = np.empty(0, dtype=np.int64)
    for _, _, found in _pairs_by_piece(vector, ids, bits, bounds):
        pairs = np.union1d(pairs, found)
        _check_count_values(len(pairs), step_count, bounds)
    counts = np.zeros((len(pairs), step_count))
    for steps, at, found in _pairs_by_piece(vector, ids, bits, bounds):
        width = steps.stop - steps.start
        cells = np.searchsorted(pairs, found) * width + at
        counted = np.bincount(cells, minlength=len(pairs) * width)
        counts[:, steps] = counted.reshape(len(pairs), width)
    texts = [format_value(value) for value in bits.view(np.float64).tolist()]
    out = labels.take(pairs // len(bits)).with_values(
        label, [texts[code] for code in (pairs % len(bits)).tolist()]
    )
    return Vector(out, counts, counts > 0, np.zeros(len(pairs), dtype=bool))


def _check_count_values(pair_count: int, step_count: int, bounds: Bounds) -> None:
    if pair_count > COUNT_VALUES_SERIES_MAX:
        raise ExecutionFault(
            f"count_values makes {pair_count} series or more, over {COUNT_VALUES_SERIES_MAX}",
            "sluiceway-query-series-limit",
        )
    bounds.allow(pair_count, step_count, "count_values")


def _bits(values: Floats) -> Times:
    """Equal values are one, all NaN are one; -0 prints as such and stays apart."""
    bits: Times = np.where(np.isnan(values), np.nan, values).view(np.int64)
    return bits


def _distinct_values(vector: Vector, bounds: Bounds) -> Times:
    """Bits of all values that are there, ascending. Each makes a series, if not several."""
    distinct = np.empty(0, dtype=np.int64)
    series_count, step_count = vector.present.shape
    for steps in bounds.pieces(step_count, series_count):
        there = vector.values[:, steps][vector.present[:, steps]]
        distinct = np.union1d(distinct, _bits(there))
        _check_count_values(len(distinct), step_count, bounds)
    return distinct


def _pairs_by_piece(
    vector: Vector, ids: Times, bits: Times, bounds: Bounds
) -> Iterator[tuple[slice, Times, Times]]:
    """(steps, step within them, group and value as one number) of all samples, piece by piece."""
    series_count, step_count = vector.present.shape
    for steps in bounds.pieces(step_count, series_count):
        rows, at = np.nonzero(vector.present[:, steps])
        codes = np.searchsorted(bits, _bits(vector.values[:, steps][rows, at]))
        yield steps, at, ids[rows] * len(bits) + codes


def limit_ratio(vector: Vector, ratio: Floats, hashes: Floats) -> Vector:
    """The share of series whose hash lies below the ratio; a negative one takes the others."""
    below = hashes[:, None] < ratio[None, :]
    beyond = hashes[:, None] >= 1.0 + ratio[None, :]
    chosen = np.where(ratio[None, :] >= 0, below, beyond)
    return vector.filtered(vector.present & chosen).without_absent_series()


def capped_ratio(value: float) -> float:
    return math.copysign(1.0, value) if abs(value) > 1 else value
