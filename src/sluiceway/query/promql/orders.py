"""Order statistics of grouped columns: the first k rows of each group, and quantiles.

Groups that are few and large are cut out and partitioned; groups that are many and small are
ordered together. Invariant: among equal keys the earlier row is first, so that what is chosen
does not change from step to step without need; NaN comes last for the first rows and first for
quantiles, as in Prometheus.
"""

import numpy as np

from sluiceway.query.interface import Bools, Floats, Times
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.values import Vector, count_present

# Up to this many groups are looked at one by one.
_GROUPS_ONE_BY_ONE_MAX = 64


def first_rows(keys: Floats, present: Bools, ids: Times, counts: Times, bounds: Bounds) -> Bools:
    """[S, T]: the `counts[t]` present rows of each group with the least keys."""
    chosen = np.empty(present.shape, dtype=bool)
    for steps in bounds.pieces(present.shape[1], len(present)):
        chosen[:, steps] = _first_rows(keys[:, steps], present[:, steps], ids, counts[steps])
    return chosen


def _first_rows(keys: Floats, present: Bools, ids: Times, counts: Times) -> Bools:
    chosen = np.zeros_like(present)
    order = np.argsort(ids, kind="stable")
    sizes = np.bincount(ids)
    ends = np.cumsum(sizes)
    if len(sizes) > _GROUPS_ONE_BY_ONE_MAX or (counts != counts[0]).any():
        return _first_rows_together(keys, present, ids, counts, order, sizes)
    for start, end in zip(ends - sizes, ends, strict=True):
        rows = order[start:end]
        if len(sizes) == 1:
            return _first_rows_of_one(keys, present, int(counts[0]))
        chosen[rows] = _first_rows_of_one(keys[rows], present[rows], int(counts[0]))
    return chosen


def _first_rows_of_one(keys: Floats, present: Bools, count: int) -> Bools:
    if count >= len(keys):
        return present.copy()
    if count <= 0:
        return np.zeros_like(present)
    comparable = present & ~np.isnan(keys)
    usable = np.where(comparable, keys, np.inf)
    threshold = np.partition(usable, count - 1, axis=0)[count - 1]
    below = usable < threshold
    at_threshold = comparable & (usable == threshold)
    chosen: Bools = below | _leading(at_threshold, count - below.sum(axis=0))
    missing = count - chosen.sum(axis=0)
    if (missing > 0).any():
        chosen |= _leading(present & ~comparable, missing)
    return chosen


def _leading(rows: Bools, counts: Times) -> Bools:
    """The first `counts[t]` of the rows that are set."""
    leading = np.zeros_like(rows)
    # Mostly few rows are set anywhere: only those are counted.
    candidates = np.flatnonzero(rows.any(axis=1))
    some = rows[candidates]
    leading[candidates] = some & (np.cumsum(some, axis=0, dtype=np.int32) <= counts)
    return leading


def _first_rows_together(
    keys: Floats, present: Bools, ids: Times, counts: Times, order: Times, sizes: Times
) -> Bools:
    group = np.broadcast_to(ids[:, None], keys.shape)
    places = np.lexsort((keys, np.isnan(keys), ~present, group), axis=0)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank = np.arange(len(order)) - starts
    chosen = np.zeros_like(present)
    np.put_along_axis(chosen, places, rank[:, None] < counts[None, :], axis=0)
    return chosen & present


def quantiles(
    vector: Vector, ids: Times, group_count: int, quantile: Floats, bounds: Bounds
) -> tuple[Floats, Bools]:
    """[G, T] quantiles with linear interpolation between neighbours, and presence."""
    shape = (group_count, vector.present.shape[1])
    values, present = np.empty(shape), np.empty(shape, dtype=bool)
    for steps in bounds.pieces(shape[1], vector.series_count):
        piece = Vector(
            vector.labels, vector.values[:, steps], vector.present[:, steps], vector.drop_name
        )
        values[:, steps], present[:, steps] = _quantiles(piece, ids, group_count, quantile[steps])
    return values, present


def _quantiles(
    vector: Vector, ids: Times, group_count: int, quantile: Floats
) -> tuple[Floats, Bools]:
    sizes = count_present(vector.present, ids, group_count)
    group_sizes = np.bincount(ids, minlength=group_count)
    ends = np.cumsum(group_sizes)
    starts = ends - group_sizes
    missing = vector.present & np.isnan(vector.values)
    if group_count <= _GROUPS_ONE_BY_ONE_MAX and not missing.any():
        # What is absent becomes NaN, which sorts last.
        ordered = np.where(vector.present, vector.values, np.nan)
        ordered = ordered[np.argsort(ids, kind="stable")] if group_count > 1 else ordered
        for start, end in zip(starts, ends, strict=True):
            ordered[start:end].sort(axis=0)
    else:
        group = np.broadcast_to(ids[:, None], vector.values.shape)
        keys = (vector.values, ~missing, ~vector.present, group)
        ordered = np.take_along_axis(vector.values, np.lexsort(keys, axis=0), axis=0)
    fraction = np.where((quantile >= 0) & (quantile <= 1), quantile, 0.0)
    last = (sizes - 1).clip(min=0)
    rank = fraction[None, :] * last
    lower = np.floor(rank).astype(np.int64)
    weight = rank - lower
    below = np.take_along_axis(ordered, starts[:, None] + lower, axis=0)
    above = np.take_along_axis(ordered, starts[:, None] + np.minimum(lower + 1, last), axis=0)
    result = below * (1 - weight) + above * weight
    result = np.where(quantile < 0, -np.inf, result)
    result = np.where(quantile > 1, np.inf, result)
    return np.where(np.isnan(quantile), np.nan, result), sizes > 0
