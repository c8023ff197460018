"""Values of the engine: the grid of steps, instant vectors as columns, and how they combine.

Invariant: no two series of a `Vector` have the same labels; `values` mean something only where
`present` is set. Arrays are never written to once they stand in a vector (they may be views).
"""

from dataclasses import dataclass

import numpy as np

from sluiceway.kernels import LabelTable, format_float
from sluiceway.query.interface import Bools, Floats, Times
from sluiceway.query.promql.faults import ExecutionFault

# What goes with the metric's name: its type and unit are told of the metric, not of a result.
RESERVED_LABELS = ["__name__", "__type__", "__unit__"]
MERGE_CELLS = 1 << 20
"""Samples put in place at once where series of the same labels become one."""
SAME_LABELSET = "vector cannot contain metrics with the same labelset"


@dataclass(frozen=True, slots=True)
class Grid:
    """Evaluation times: `count` steps from `start_ms`, `step_ms` apart."""

    start_ms: int
    step_ms: int
    count: int

    @property
    def end_ms(self) -> int:
        return self.start_ms + (self.count - 1) * self.step_ms

    def times_ms(self) -> Times:
        return self.start_ms + np.arange(self.count, dtype=np.int64) * self.step_ms

    def first(self) -> "Grid":
        """The grid of the first step alone."""
        return Grid(self.start_ms, self.step_ms, 1)


@dataclass(slots=True)
class Vector:
    """S series by T steps. `drop_name` [S]: the metric's name goes when the query ends."""

    labels: LabelTable
    values: Floats
    present: Bools
    drop_name: Bools

    @property
    def series_count(self) -> int:
        return len(self.labels)

    def broadcast(self, step_count: int) -> "Vector":
        """The one step of this vector, at every step."""
        shape = (len(self.labels), step_count)
        return Vector(
            self.labels,
            np.broadcast_to(self.values, shape),
            np.broadcast_to(self.present, shape),
            self.drop_name,
        )

    def with_values(self, values: Floats, present: Bools | None = None) -> "Vector":
        """The same series with other values, the name to be dropped at the end."""
        return Vector(
            self.labels,
            values,
            self.present if present is None else present,
            np.ones(len(self.labels), dtype=bool),
        )

    def filtered(self, present: Bools) -> "Vector":
        """The same samples where `present` is set, names kept."""
        return Vector(self.labels, self.values, present, self.drop_name)

    def take(self, index: Times) -> "Vector":
        return Vector(
            self.labels.take(index),
            self.values[index],
            self.present[index],
            self.drop_name[index],
        )

    def without_absent_series(self) -> "Vector":
        """Only series that are present at some step."""
        alive = self.present.any(axis=1)
        return self if alive.all() else self.take(np.flatnonzero(alive))


def empty_vector(step_count: int) -> Vector:
    return Vector(
        LabelTable.from_lists([]),
        np.empty((0, step_count)),
        np.empty((0, step_count), dtype=bool),
        np.empty(0, dtype=bool),
    )


def ranks_in_groups(ids: Times) -> tuple[Times, Times]:
    """(order, rank): `order` sorts rows by id, stably; `rank` counts a row's equals before it."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    first = np.empty(len(ids), dtype=bool)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    positions = np.arange(len(ids))
    starts = np.maximum.accumulate(np.where(first, positions, 0))
    rank = np.empty(len(ids), dtype=np.int64)
    rank[order] = positions - starts
    return order, rank


def count_present(present: Bools, ids: Times, group_count: int) -> Times:
    """[G, T]: how many rows of each group are present at each step."""
    counts = np.zeros((group_count, present.shape[1]), dtype=np.int64)
    if len(ids):
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        counts[ordered[starts]] = np.add.reduceat(present[order], starts, axis=0, dtype=np.int64)
    return counts


def any_present(present: Bools, ids: Times, group_count: int) -> Bools:
    """[G, T]: whether some row of each group is present at each step."""
    return count_present(present, ids, group_count) > 0


def merge_equal_series(vector: Vector) -> Vector:
    """One series for each label set. Raises: ExecutionFault where two are present at one step."""
    if len(vector.labels) < 2 or vector.labels.first_duplicate() is None:
        return vector
    vector = vector.without_absent_series()
    ids = vector.labels.dedup_ids().astype(np.int64)
    if not len(ids):
        return vector
    group_count = int(ids.max()) + 1
    if (count_present(vector.present, ids, group_count) > 1).any():
        raise ExecutionFault(SAME_LABELSET)
    _, firsts = np.unique(ids, return_index=True)
    values, present = vector.values[firsts].copy(), vector.present[firsts].copy()
    others = np.ones(len(ids), dtype=bool)
    others[firsts] = False
    # Each sample has its place to itself: all rows at once, a few at a time for memory's sake.
    rest = np.flatnonzero(others)
    size = max(1, MERGE_CELLS // vector.present.shape[1])
    for start in range(0, len(rest), size):
        rows, steps = np.nonzero(vector.present[rest[start : start + size]])
        rows = rest[start + rows]
        values[ids[rows], steps] = vector.values[rows, steps]
        present[ids[rows], steps] = True
    return Vector(vector.labels.take(firsts), values, present, vector.drop_name[firsts])


def drop_names(vector: Vector) -> Vector:
    """Carry out the removal of names that was put off, at the end of the evaluation."""
    if not vector.drop_name.any():
        return vector
    if vector.drop_name.all():
        labels = vector.labels.drop(RESERVED_LABELS)
        values, present = vector.values, vector.present
    else:
        kept, dropped = np.flatnonzero(~vector.drop_name), np.flatnonzero(vector.drop_name)
        order = np.argsort(np.r_[kept, dropped], kind="stable")
        labels = LabelTable.concat(
            [vector.labels.take(kept), vector.labels.take(dropped).drop(RESERVED_LABELS)]
        ).take(order)
        values, present = vector.values, vector.present
    return merge_equal_series(Vector(labels, values, present, np.zeros(len(labels), dtype=bool)))


def format_value(value: float) -> str:
    """A float as PromQL prints it: shortest digits that read back, never an exponent."""
    return format_float(value)


def format_short(value: float) -> str:
    """A float as Go's %g prints it, for messages."""
    if value != value or value in (float("inf"), float("-inf")):
        return format_value(value)
    exponent = int(f"{value:e}".partition("e")[2])
    if value and not -5 < exponent < 21:
        return str(np.format_float_scientific(value, trim="-"))
    return format_value(value)
