"""Range vectors as results: points series by series, at times of their own."""

import json
from dataclasses import dataclass

import numpy as np

from sluiceway.kernels import LabelTable
from sluiceway.query.interface import Floats, Times
from sluiceway.query.promql.values import Vector, format_value


@dataclass(slots=True)
class RawSeries:
    """Series `i` owns points `offsets[i]..offsets[i + 1]`."""

    labels: LabelTable
    offsets: Times
    times_ms: Times
    values: Floats


def columns_to_raw(vector: Vector, times_ms: Times) -> RawSeries:
    rows, steps = np.nonzero(vector.present)
    counts = np.bincount(rows, minlength=vector.series_count)
    offsets = np.r_[0, np.cumsum(counts)].astype(np.int64)
    return RawSeries(vector.labels, offsets, times_ms[steps], vector.values[rows, steps])


def write_raw(raw: RawSeries) -> bytes:
    """The `result` array of a matrix; series in order of their labels, none without a point."""
    labels, offsets = raw.labels.to_list(), raw.offsets.tolist()
    times, values = raw.times_ms.tolist(), raw.values.tolist()
    pieces = []
    for row in raw.labels.sort_order().tolist():
        points = ",".join(
            f'[{format_value(times[i] / 1000)},"{format_value(values[i])}"]'
            for i in range(offsets[row], offsets[row + 1])
        )
        if points:
            metric = json.dumps(labels[row], ensure_ascii=False, separators=(",", ":"))
            pieces.append(f'{{"metric":{metric},"values":[{points}]}}')
    return f"[{','.join(pieces)}]".encode()


def write_string(text: str, time_ms: int) -> bytes:
    """A string result; bytes that are no UTF-8 show as the replacement character."""
    clean = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"[{format_value(time_ms / 1000)},{json.dumps(clean, ensure_ascii=False)}]".encode()
