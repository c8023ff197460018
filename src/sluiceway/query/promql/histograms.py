"""Quantiles and fractions of classic histograms: series that differ in `le` alone.

Histograms with the same number of buckets are computed together as [histogram, bucket, step]
columns. Invariant: a bucket that is absent at a step is not there at that step; columns with the
same set of buckets are computed together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sluiceway.query.interface import Bools, Floats, Times
from sluiceway.query.promql.annotations import Annotations
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.values import Vector, count_present, empty_vector

# Differences of this relative size between buckets are rounding, not a fault of the data.
_TOLERANCE = 1e-12
_MONOTONICITY = (
    "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/"
    "docs/prometheus/latest/querying/functions/#histogram_quantile)"
)


@dataclass(slots=True)
class Columns:
    """Histograms at single steps: `bounds` [B] ascending, `counts` [B, N] cumulative."""

    bounds: Floats
    counts: Floats
    forced: Bools


def _parse_bound(text: str) -> float | None:
    if "_" in text or text != text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def over_buckets(
    vector: Vector,
    compute: Callable[[Columns, Times], Floats],
    annotations: Annotations,
    start: int,
    bounds: Bounds,
    monotonic: bool = True,
) -> Vector:
    """Apply `compute(columns, steps)` to every histogram at every step it is there.

    `steps` [N] are the step numbers of the columns, for parameters that vary."""
    step_count = vector.present.shape[1]
    if not vector.series_count:
        return empty_vector(step_count)
    vector = _with_sound_bounds(vector, annotations, start)
    if not vector.series_count:
        return empty_vector(step_count)
    codes, texts = vector.labels.codes_of("le")
    edges = np.array([_parse_bound(text) for text in texts], dtype=np.float64)[codes]
    groups = vector.labels.drop(["le"])
    ids = groups.dedup_ids().astype(np.int64)
    unique, firsts, ids = np.unique(ids, return_index=True, return_inverse=True)
    group_count = len(unique)
    order = np.lexsort((edges, ids))
    sizes = np.bincount(ids, minlength=group_count)
    starts = np.cumsum(sizes) - sizes
    values = np.full((group_count, step_count), np.nan)
    forced = np.zeros(group_count, dtype=bool)
    for size in np.unique(sizes).tolist():
        of_size = np.flatnonzero(sizes == size)
        for piece in bounds.pieces(len(of_size), size * step_count):
            members = of_size[piece]
            rows = order[starts[members][:, None] + np.arange(size)]
            batch = Batch(vector, edges, members, rows, monotonic)
            batch.compute(compute, values, forced, bounds)
    if forced.any():
        names = groups.take(firsts[forced]).values_of("__name__")
        for name in dict.fromkeys(names):
            about = f' for metric name "{name}"' if name else ""
            annotations.inform(_MONOTONICITY + about, start)
    present = count_present(vector.present, ids, group_count) > 0
    labels = groups.take(firsts)
    return Vector(labels, values, present, np.ones(group_count, dtype=bool))


def _with_sound_bounds(vector: Vector, annotations: Annotations, start: int) -> Vector:
    codes, texts = vector.labels.codes_of("le")
    sound = np.array([_parse_bound(text) is not None for text in texts], dtype=bool)
    vector_alive = vector.present.any(axis=1)
    if sound.all() and vector_alive.all():
        return vector
    bad = np.flatnonzero(~sound[codes] & vector_alive)
    if len(bad):
        names = vector.labels.take(bad).values_of("__name__")
        told = {(name, texts[codes[row]]) for name, row in zip(names, bad.tolist(), strict=True)}
        for name, text in sorted(told):
            about = f' for metric name "{name}"' if name else ""
            annotations.warn(
                f'bucket label "le" is missing or has a malformed value of "{text}"{about}', start
            )
    return vector.take(np.flatnonzero(sound[codes] & vector_alive))


@dataclass(slots=True)
class Batch:
    """Histograms with the same number of series: `rows` [n, B], ascending by edge."""

    vector: Vector
    edges: Floats
    members: Times
    rows: Times
    monotonic: bool

    def compute(
        self,
        compute: Callable[[Columns, Times], Floats],
        values: Floats,
        forced: Bools,
        bounds: Bounds,
    ) -> None:
        """Put what `compute` says into the members' rows of `values` and `forced`."""
        step_count = self.vector.present.shape[1]
        size = self.rows.shape[1]
        counts = self.vector.values[self.rows].transpose(1, 0, 2).reshape(size, -1)
        present = self.vector.present[self.rows].transpose(1, 0, 2).reshape(size, -1)
        steps = np.tile(np.arange(step_count), len(self.members))
        histogram = np.repeat(np.arange(len(self.members)), step_count)
        # Columns with the same bounds and the same absent buckets go together; mostly that is all.
        layouts, layout_of = np.unique(self.edges[self.rows], axis=0, return_inverse=True)
        patterns, pattern_of = np.unique(np.packbits(present, axis=0), axis=1, return_inverse=True)
        kinds = layout_of.reshape(-1)[histogram] * patterns.shape[1] + pattern_of.reshape(-1)
        order = np.argsort(kinds, kind="stable")
        ends = np.flatnonzero(np.r_[kinds[order][1:] != kinds[order][:-1], True]) + 1
        for columns in np.split(order, ends[:-1]):
            bounds.check_time()
            here = np.flatnonzero(present[:, columns[0]])
            if not len(here):
                continue
            edge = layouts[kinds[columns[0]] // patterns.shape[1]][here]
            found = counts[np.ix_(here, columns)]
            cumulative, distinct, fixed = _cumulative(edge, found, self.monotonic)
            result = compute(Columns(distinct, cumulative, fixed), steps[columns])
            targets = self.members[histogram[columns]]
            values[targets, steps[columns]] = result
            forced[targets[fixed & _has_infinite_top(distinct)]] = True


def _has_infinite_top(bounds: Floats) -> bool:
    return bool(len(bounds) >= 2 and bounds[-1] == np.inf)


def _cumulative(bounds: Floats, counts: Floats, monotonic: bool) -> tuple[Floats, Floats, Bools]:
    """Counts with equal bounds added up, that never fall where `monotonic`, and which columns had
    to be forced."""
    distinct, place = np.unique(bounds, return_inverse=True)
    if len(distinct) < len(bounds):
        summed = np.zeros((len(distinct), counts.shape[1]))
        np.add.at(summed, place, counts)
        counts = summed
    else:
        counts = counts.copy()
    forced = np.zeros(counts.shape[1], dtype=bool)
    if not monotonic:
        return counts, distinct, forced
    previous = counts[0]
    for bucket in range(1, len(distinct)):
        current = counts[bucket]
        size = np.abs(previous) + np.abs(current)
        close = np.abs(current - previous) < _TOLERANCE * size
        falls = (current < previous) & ~close
        forced |= falls
        counts[bucket] = np.where(falls | close, previous, current)
        previous = counts[bucket]
    return counts, distinct, forced


def bucket_quantile(columns: Columns, quantile: Floats) -> Floats:
    """[N] quantiles by linear interpolation within the bucket. `quantile` is [N]."""
    bounds, counts = columns.bounds, columns.counts
    shape = quantile.shape
    if not _has_infinite_top(bounds):
        result = np.full(shape, np.nan)
    else:
        total = counts[-1]
        rank = quantile * total
        # The first bucket but the last that holds the rank; the last where none does.
        reached = counts[:-1] >= rank[None, :]
        bucket = np.where(reached.any(axis=0), reached.argmax(axis=0), len(bounds) - 1)
        columns_index = np.arange(len(rank))
        below = np.where(bucket > 0, counts[bucket - 1, columns_index], 0.0)
        lower = np.where(bucket > 0, bounds[bucket - 1], 0.0)
        upper = bounds[bucket]
        inside = counts[bucket, columns_index] - below
        result = lower + (upper - lower) * ((rank - below) / inside)
        result = np.where((bucket == 0) & (bounds[0] <= 0), bounds[0], result)
        result = np.where(bucket == len(bounds) - 1, bounds[-2], result)
        result = np.where(total == 0, np.nan, result)
        result = np.where(np.isnan(total), np.nan, result)
    result = np.where(quantile < 0, -np.inf, result)
    result = np.where(quantile > 1, np.inf, result)
    return np.where(np.isnan(quantile), np.nan, result)


def bucket_fraction(columns: Columns, lower: Floats, upper: Floats) -> Floats:
    """[N] share of observations between `lower` and `upper` [N]."""
    bounds, counts = columns.bounds, columns.counts
    if bounds[-1] != np.inf:
        return np.full(lower.shape, np.nan)
    total = counts[-1]
    share = (_rank_at(bounds, counts, upper) - _rank_at(bounds, counts, lower)) / total
    share = np.where(lower >= upper, 0.0, share)
    missing = np.isnan(lower) | np.isnan(upper) | np.isnan(total) | (total == 0)
    return np.where(missing, np.nan, share)


def _rank_at(bounds: Floats, counts: Floats, at: Floats) -> Floats:
    """[N] observations at or below `at`, interpolated within the bucket that holds it."""
    bucket = np.searchsorted(bounds, at, "left").clip(max=len(bounds) - 1)
    index = np.arange(len(at))
    below = np.where(bucket > 0, counts[bucket - 1, index], 0.0)
    # The lowest bucket starts at zero where its bound lies above it.
    floor = 0.0 if bounds[0] > 0 else -np.inf
    lower = np.where(bucket > 0, bounds[bucket - 1], floor)
    upper, inside = bounds[bucket], counts[bucket, index] - below
    width = upper - lower
    part = np.where(np.isfinite(width) & (width > 0), (at - lower) / width, 0.0)
    rank = below + inside * part.clip(0.0, 1.0)
    rank = np.where(at <= floor, 0.0, rank)
    # A bucket without a lower end counts whole: nothing is known of where its values lie.
    rank = np.where((bucket == 0) & (lower == -np.inf) & (at > -np.inf), counts[0], rank)
    return np.where(at == np.inf, counts[-1], rank)
