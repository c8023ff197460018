"""Range vectors as results: points series by series, at times of their own."""

import json
from dataclasses import dataclass

import numpy as np

from sluiceway.kernels import LabelTable, write_points
from sluiceway.query.interface import Floats, Times
from sluiceway.query.promql.values import Vector, format_value


@dataclass(slots=True)
class RawSeries:
    """Series `i` owns points `offsets[i]..offsets[i + 1]`."""

    labels: LabelTable
    offsets: Times
    times_ms: Times
    values: Floats

    def first(self, count: int) -> "RawSeries":
        """The first series in the order of their labels."""
        rows = self.labels.sort_order()[:count]
        counts = (self.offsets[1:] - self.offsets[:-1])[rows]
        offsets = np.r_[0, np.cumsum(counts)].astype(np.int64)
        points = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return RawSeries(
            self.labels.take(rows), offsets, self.times_ms[points], self.values[points]
        )


def columns_to_raw(vector: Vector, times_ms: Times) -> RawSeries:
    rows, steps = np.nonzero(vector.present)
    counts = np.bincount(rows, minlength=vector.series_count)
    offsets = np.r_[0, np.cumsum(counts)].astype(np.int64)
    return RawSeries(vector.labels, offsets, times_ms[steps], vector.values[rows, steps])


def write_raw(raw: RawSeries) -> bytes:
    """The `result` array of a matrix; series in order of their labels, none without a point."""
    order = raw.labels.sort_order()
    return write_points(raw.labels, order, raw.offsets, raw.times_ms, raw.values)


def write_string(text: str, time_ms: int) -> bytes:
    """A string result; bytes that are no UTF-8 show as the replacement character."""
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"[{format_value(time_ms / 1000)},{json.dumps(clean, ensure_ascii=False)}]".encode()
