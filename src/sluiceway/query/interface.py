"""What the read side asks of a shard, as roles.

`ShardReader` is implemented by the evaluate client (`kernels.ShardClient`) and, in tests, by an
in-memory reader. All calls block without the GIL, honour `cancel`, and raise the tree of
`sluiceway.errors`. Arrays handed out belong to the caller.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sluiceway.kernels import CancelToken, LabelTable

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Times = NDArray[np.int64]


class StepColumns(Protocol):
    """Answer of an evaluation: [S, T] values and presence, one row a series or group."""

    @property
    def labels(self) -> LabelTable: ...
    @property
    def values(self) -> Floats: ...
    @property
    def present(self) -> Bools: ...
    @property
    def stats(self) -> dict[str, Any]: ...
    @property
    def warnings(self) -> list[str]: ...


class PointSeries(Protocol):
    """Raw points: series `i` owns `[offsets[i]:offsets[i + 1]]` of times and values."""

    @property
    def labels(self) -> LabelTable: ...
    @property
    def offsets(self) -> Times: ...
    @property
    def times_ms(self) -> Times: ...
    @property
    def values(self) -> Floats: ...
    @property
    def stats(self) -> dict[str, Any]: ...
    @property
    def warnings(self) -> list[str]: ...


class ShardReader(Protocol):
    """Evaluates plans (query/promql/plan.py says what stands in one) and lists labels."""

    def evaluate(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> StepColumns:
        """Step columns of one selection. The answer holds every point acked before the call, or
        `warnings` says that it lags. Raises: TenantFault(422) over a limit, DeadlineExceeded."""
        ...

    def points(self, request: dict[str, Any], cancel: CancelToken | None = None) -> PointSeries:
        """Raw points of (start_ms, end_ms], without stale markers. The request holds `tenant`,
        `matchers`, the two times and `limits`, as a plan does."""
        ...


@runtime_checkable
class TiersReader(Protocol):
    """A reader over several tiers, whose files change between queries."""

    def pinned(self) -> ShardReader:
        """The tiers as they stand now: what one query reads through, on one thread."""
        ...
