"""Aggregations over vectors that are already columns: grouped sums, extremes, orders, counts.

Invariant: groups are numbered once for all steps; a group is present at a step where one of its
series is. Selections that a shard can aggregate itself never come here (plan.py).
"""

import math

import numpy as np

from sluiceway.kernels import LabelTable, aggregate_columns
from sluiceway.query.interface import Bools, Floats, Times
from sluiceway.query.promql import orders
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
    operator: str, vector: Vector, grouping: list[str], without: bool, parameter: Floats | None
) -> Vector:
    """Any aggregation whose parameter is a scalar [T] or nothing. Raises: ExecutionFault."""
    if operator in ("topk", "bottomk", "limitk"):
        return _chosen_rows(vector, grouping, without, _counts(parameter), operator)
    vector = vector.without_absent_series()
    if not vector.series_count:
        return empty_vector(vector.present.shape[1])
    ids, labels, drop_name = _grouped(vector, grouping, without)
    if operator == "quantile":
        assert parameter is not None, "quantile has a parameter"
        values, present = orders.quantiles(vector, ids, len(labels), parameter)
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
    vector: Vector, grouping: list[str], without: bool, counts: Times, order: str
) -> Vector:
    """topk, bottomk, limitk: whole series, present at the steps where they are chosen."""
    vector = vector.without_absent_series()
    if not vector.series_count:
        return empty_vector(vector.present.shape[1])
    ids, _, _ = _grouped(vector, grouping, without)
    keys = {"topk": -vector.values, "bottomk": vector.values}.get(order)
    if keys is None:
        keys = np.zeros_like(vector.values)
    chosen = orders.first_rows(keys, vector.present, ids, counts)
    result = vector.filtered(chosen)
    if chosen.shape[1] == 1 and order != "limitk":
        # An instant answer comes in order of value, group after group.
        places = np.lexsort((keys[:, 0], np.isnan(keys[:, 0]), ids))
        return result.take(places[chosen[places, 0]])
    return result.without_absent_series()


def count_values(vector: Vector, grouping: list[str], without: bool, label: str) -> Vector:
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
