"""A reader that answers any selection with columns made up at once: for tests of what is above."""

from typing import Any

import numpy as np

from fakes.memory_reader import MemoryColumns
from sluiceway.kernels import CancelToken, LabelTable


class ColumnReader:
    """`x` has as many series as asked for, all present, every value its own; `y` has one."""

    def __init__(self, series_count: int) -> None:
        self.labels = LabelTable.from_lists(
            [{"__name__": "x", "number": str(row)} for row in range(series_count)]
        )

    def evaluate(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> MemoryColumns:
        names = [one["value"] for one in plan["matchers"] if one["name"] == "__name__"]
        labels = self.labels
        if names == ["y"]:
            labels = LabelTable.from_lists([{"__name__": "y"}])
        step_ms = plan["step_ms"] or 1
        shape = (len(labels), (plan["end_ms"] - plan["start_ms"]) // step_ms + 1)
        values = np.arange(shape[0] * shape[1], dtype=np.float64).reshape(shape)
        return MemoryColumns(labels, values, np.ones(shape, dtype=bool))
