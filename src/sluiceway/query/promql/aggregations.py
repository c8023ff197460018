"""Aggregations over vectors that are already columns: grouped sums, extremes, orders, counts.

Invariant: groups are numbered once for all steps; a group is present at a step where one of its
series is. Selections that a shard can aggregate itself never come here (plan.py).
"""

import math
from collections.abc import Callable

import numpy as np

from sluiceway.kernels import LabelTable
from sluiceway.query.interface import Bools, Floats, Times
from sluiceway.query.promql import sums
from sluiceway.query.promql.faults import ExecutionFault
from sluiceway.query.promql.values import Vector, count_present, empty_vector, format_value

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
    operator: str, vector: Vector, grouping: list[str], without: bool, parameter: Floats | None
) -> Vector:
    """Any aggregation whose parameter is a scalar [T] or nothing. Raises: ExecutionFault."""
    if operator in ("topk", "bottomk", "limitk"):
        counts = _counts(parameter)
        if operator == "limitk":
            return _first_rows(vector, grouping, without, counts)
        return _extreme_rows(vector, grouping, without, counts, operator == "topk")
    vector = vector.without_absent_series()
    if not vector.series_count:
        return empty_vector(vector.present.shape[1])
    ids, labels, drop_name = _grouped(vector, grouping, without)
    group_count = len(labels)
    present = count_present(vector.present, ids, group_count)
    if operator == "quantile":
        assert parameter is not None, "quantile has a parameter"
        values = _quantiles(vector, ids, present, parameter)
    else:
        values = _REDUCTIONS[operator](vector.values, vector.present, ids, group_count)
    return Vector(labels, values, present > 0, drop_name)


_REDUCTIONS: dict[str, Callable[[Floats, Bools, Times, int], Floats]] = {
    "sum": sums.group_sums,
    "avg": sums.group_means,
    "count": lambda values, present, ids, n: count_present(present, ids, n).astype(np.float64),
    "group": lambda values, present, ids, n: np.ones((n, values.shape[1])),
    "min": lambda values, present, ids, n: sums.group_extremes(values, present, ids, False),
    "max": lambda values, present, ids, n: sums.group_extremes(values, present, ids, True),
    "stdvar": sums.group_variances,
    "stddev": lambda values, present, ids, n: np.sqrt(
        sums.group_variances(values, present, ids, n)
    ),
}


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


def _positions(vector: Vector, ids: Times, keys: list[Floats | Bools]) -> tuple[Times, Times]:
    """Per step: rows ordered by (group, absent last, keys), and each place's rank in its group."""
    step_count = vector.present.shape[1]
    group = np.broadcast_to(ids[:, None], (len(ids), step_count))
    order = np.lexsort((*reversed(keys), ~vector.present, group), axis=0)
    sizes = np.bincount(ids)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order, np.arange(len(ids)) - starts


def _extreme_rows(
    vector: Vector, grouping: list[str], without: bool, counts: Times, largest: bool
) -> Vector:
    vector = vector.without_absent_series()
    if not vector.series_count:
        return empty_vector(vector.present.shape[1])
    ids, _, _ = _grouped(vector, grouping, without)
    missing = np.isnan(vector.values)
    key = np.where(missing, 0.0, -vector.values if largest else vector.values)
    order, rank = _positions(vector, ids, [missing, key])
    chosen_places = rank[:, None] < counts[None, :]
    chosen = np.zeros_like(vector.present)
    np.put_along_axis(chosen, order, chosen_places, axis=0)
    result = vector.filtered(vector.present & chosen)
    if result.present.shape[1] == 1:
        # An instant answer comes in order of value, group after group.
        rows = order[:, 0]
        return result.take(rows[result.present[rows, 0]])
    return result.without_absent_series()


def _first_rows(vector: Vector, grouping: list[str], without: bool, counts: Times) -> Vector:
    vector = vector.without_absent_series()
    if not vector.series_count:
        return empty_vector(vector.present.shape[1])
    ids, _, _ = _grouped(vector, grouping, without)
    order, rank = _positions(vector, ids, [])
    chosen = np.zeros_like(vector.present)
    np.put_along_axis(chosen, order, rank[:, None] < counts[None, :], axis=0)
    return vector.filtered(vector.present & chosen).without_absent_series()


def _quantiles(vector: Vector, ids: Times, sizes: Times, quantile: Floats) -> Floats:
    """[G, T] quantiles with linear interpolation; NaN sorts first, as in Prometheus."""
    not_missing = ~np.isnan(vector.values)
    order, _ = _positions(vector, ids, [not_missing, vector.values])
    ordered = np.take_along_axis(vector.values, order, axis=0)
    group_sizes = np.bincount(ids)
    starts = (np.cumsum(group_sizes) - group_sizes)[:, None]
    fraction = np.where((quantile >= 0) & (quantile <= 1), quantile, 0.0)
    rank = fraction[None, :] * (sizes - 1).clip(min=0)
    lower = np.floor(rank).astype(np.int64).clip(min=0)
    upper = np.minimum(lower + 1, (sizes - 1).clip(min=0))
    weight = rank - np.floor(rank)
    below = np.take_along_axis(ordered, starts + lower, axis=0)
    above = np.take_along_axis(ordered, starts + upper, axis=0)
    result: Floats = below * (1 - weight) + above * weight
    result = np.where(quantile < 0, -np.inf, result)
    result = np.where(quantile > 1, np.inf, result)
    return np.where(np.isnan(quantile), np.nan, result)


def count_values(vector: Vector, grouping: list[str], without: bool, label: str) -> Vector:
    """How many series of each group have each value, the value told in `label`."""
    vector = vector.without_absent_series()
    step_count = vector.present.shape[1]
    if not vector.series_count:
        return empty_vector(step_count)
    if not without and label in grouping:
        grouping = [name for name in grouping if name != label]
    ids, labels, _ = _grouped(vector, grouping, without)
    rows, steps = np.nonzero(vector.present)
    found = vector.values[rows, steps]
    # Equal values are one, all NaN are one; -0 prints as such and stays apart.
    found = np.where(np.isnan(found), np.nan, found)
    bits, codes = np.unique(found.view(np.int64), return_inverse=True)
    texts = [format_value(value) for value in bits.view(np.float64).tolist()]
    pairs, places = np.unique(ids[rows] * len(bits) + codes, return_inverse=True)
    if len(pairs) > COUNT_VALUES_SERIES_MAX:
        raise ExecutionFault(
            f"count_values makes {len(pairs)} series, over {COUNT_VALUES_SERIES_MAX}",
            "sluiceway-query-series-limit",
        )
    counts = np.bincount(places * step_count + steps, minlength=len(pairs) * step_count)
    values = counts.reshape(len(pairs), step_count).astype(np.float64)
    out = labels.take(pairs // len(bits)).with_values(
        label, [texts[code] for code in (pairs % len(bits)).tolist()]
    )
    return Vector(out, values, values > 0, np.zeros(len(pairs), dtype=bool))


def limit_ratio(vector: Vector, ratio: Floats, hashes: Floats) -> Vector:
    """The share of series whose hash lies below the ratio; a negative one takes the others."""
    below = hashes[:, None] < ratio[None, :]
    beyond = hashes[:, None] >= 1.0 + ratio[None, :]
    chosen = np.where(ratio[None, :] >= 0, below, beyond)
    return vector.filtered(vector.present & chosen).without_absent_series()


def capped_ratio(value: float) -> float:
    return math.copysign(1.0, value) if abs(value) > 1 else value
