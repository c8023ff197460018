"""Compensated sums over groups of rows, for all steps at once.

A group's rows are added pairwise, as a tree; each node carries the sum and the error that rounding
left behind (Knuth's two-sum), so that a result is as exact as Kahan's and Neumaier's. Invariant:
the order of rows alone decides the result's last bits, never threads or chunking.
"""

import numpy as np

from sluiceway.query.interface import Bools, Floats, Times
from sluiceway.query.promql.values import count_present

# Scaling by a power of two is exact; with it the sum of 2**64 of the largest floats stays finite.
_SCALE = 2.0**-64


def group_sums(values: Floats, present: Bools, ids: Times, group_count: int) -> Floats:
    """[G, T] sums of the present values; 0 where there is none."""
    rows = np.where(present, values, 0.0)
    order = np.argsort(ids, kind="stable")
    ordered, total = ids[order], rows[order]
    error = np.zeros_like(total)
    while True:
        # Rows at even places of their group take the next row in, if it is of the same group.
        first = np.r_[True, ordered[1:] != ordered[:-1]] if len(ordered) else np.empty(0, bool)
        starts = np.maximum.accumulate(np.where(first, np.arange(len(ordered)), 0))
        even = (np.arange(len(ordered)) - starts) % 2 == 0
        keep = np.flatnonzero(even)
        if len(keep) == len(ordered):
            break
        partner = np.flatnonzero(~even)
        taker = partner - 1
        summed, lost = _two_sum(total[taker], total[partner])
        error[taker] += error[partner] + lost
        total[taker] = summed
        ordered, total, error = ordered[keep], total[keep], error[keep]
    result = np.zeros((group_count, values.shape[1]))
    # Where the sum itself is infinite or NaN the error term has no meaning.
    result[ordered] = np.where(np.isfinite(total), total + np.nan_to_num(error), total)
    return result


def group_extremes(values: Floats, present: Bools, ids: Times, largest: bool) -> Floats:
    """[G, T] least or largest values; every group has a row. NaN where there is nothing else."""
    # fmin and fmax pass over NaN, so it can stand for what is absent.
    rows = np.where(present, values, np.nan)
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    reducer = np.fmax if largest else np.fmin
    result: Floats = reducer.reduceat(rows[order], starts, axis=0)
    return result


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    total = a + b
    shadow = total - a
    error = (a - (total - shadow)) + (b - shadow)
    return total, np.where(np.isfinite(total), error, 0.0)


def group_means(values: Floats, present: Bools, ids: Times, group_count: int) -> Floats:
    """[G, T] means; NaN where there is no value. Finite inputs never overflow."""
    counts = count_present(present, ids, group_count)
    sums = group_sums(values, present, ids, group_count)
    means = sums / counts
    overflown = ~np.isfinite(sums)
    if overflown.any():
        endless = count_present(present & ~np.isfinite(values), ids, group_count) > 0
        overflown &= ~endless
    if overflown.any():
        scaled = group_sums(values * _SCALE, present, ids, group_count) / counts
        means = np.where(overflown, scaled / _SCALE, means)
    return means


def group_variances(values: Floats, present: Bools, ids: Times, group_count: int) -> Floats:
    """[G, T] population variances, in two passes over the distances from one of the values, so
    that equal values have none."""
    counts = count_present(present, ids, group_count)
    values = values - group_extremes(values, present, ids, largest=False)[ids]
    means = group_means(values, present, ids, group_count)
    distances = values - means[ids]
    squares = group_sums(distances * distances, present, ids, group_count)
    return squares / counts
