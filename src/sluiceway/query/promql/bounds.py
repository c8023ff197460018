"""What one query may take of the read side: samples held at once, series, and time.

Invariant: whatever can make more samples than it is given asks `allow` before it makes them; what
works on columns longer than a moment does so in pieces, with a look at the time between two.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sluiceway.clock import Clock
from sluiceway.errors import Cancelled, DeadlineExceeded
from sluiceway.kernels import CancelToken
from sluiceway.query.promql.faults import ExecutionFault

PIECE_CELLS = 1 << 18
"""Samples (series by steps) of one piece: a tenth of a second of sorting by several keys."""

CELL_BYTES = 9
"""A sample of an evaluated vector: its value and whether it is there."""
SERIES_JSON_BYTES, POINT_JSON_BYTES = 160, 40
"""What an answer takes of either in JSON, at most as a rule: values with all their digits."""


@dataclass(slots=True)
class Bounds:
    """`cells_max` are series by steps of one vector. `deadline_s` is of the clock's monotonic_s."""

    cells_max: int
    series_max: int
    clock: Clock
    deadline_s: float | None = None
    cancel: CancelToken | None = None
    answer_bytes_max: int = 1 << 62

    def check_time(self) -> None:
        """Raises: Cancelled, DeadlineExceeded."""
        if self.cancel is not None and self.cancel.cancelled():
            raise Cancelled("query was canceled in expression evaluation")
        if self.deadline_s is not None and self.clock.monotonic_s() > self.deadline_s:
            raise DeadlineExceeded("query timed out in expression evaluation")

    def left_s(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline_s is None else self.deadline_s - self.clock.monotonic_s()

    def allow(self, series_count: int, step_count: int, what: str) -> None:
        """May `what` hold so much? Raises: ExecutionFault, by the limit's name."""
        if series_count > self.series_max:
            raise ExecutionFault(
                f"{what} makes {series_count} series, over series_max {self.series_max}",
                "sluiceway-query-series-limit",
            )
        cells = series_count * step_count
        if cells > self.cells_max:
            raise ExecutionFault(
                f"{what} makes {series_count} series over {step_count} steps: {cells} samples, "
                f"over {self.cells_max}",
                "sluiceway-query-samples-limit",
            )

    def allow_answer(self, series_count: int, point_count: int) -> None:
        """May an answer of so much be written? Raises: ExecutionFault."""
        size = series_count * SERIES_JSON_BYTES + point_count * POINT_JSON_BYTES
        if size > self.answer_bytes_max:
            raise ExecutionFault(
                f"the answer has {point_count} points of {series_count} series, some {size} bytes, "
                f"over {self.answer_bytes_max}",
                "sluiceway-query-answer-limit",
            )

    def pieces(self, count: int, cells_each: int) -> Iterator[slice]:
        """Cuts of `count` rows or steps, each of which costs `cells_each`; the time is looked at
        before each. Raises: Cancelled, DeadlineExceeded."""
        size = max(1, PIECE_CELLS // max(1, cells_each))
        for start in range(0, count, size):
            self.check_time()
            yield slice(start, min(start + size, count))
