"""What the read side asks of a shard, as roles.

`ShardReader` is implemented by the evaluate client (`kernels.ShardClient`) and, in tests, by an
in-memory reader. All calls block without the GIL, honour `cancel`, and raise the tree of
`sluiceway.errors`. Arrays handed out belong to the caller.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sluiceway.kernels import LabelTable

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Times = NDArray[np.int64]


class Cancellation(Protocol):
    """Whether the asker has gone; `kernels.CancelToken` is one. Any thread may look."""

    def cancelled(self) -> bool: ...


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


class ShardReader(Protocol):
    """Evaluates plans (query/promql/plan.py says what stands in one) and lists labels."""

    def evaluate(self, plan: dict[str, Any], cancel: Cancellation | None = None) -> StepColumns:
        """Step columns of one selection. The answer holds every point acked before the call, or
        `warnings` says that it lags. Raises: TenantFault(422) over a limit, DeadlineExceeded."""
        ...

    def export(
        self, plan: dict[str, Any], cancel: Cancellation | None = None
    ) -> tuple[LabelTable, Times, Times, Floats]:
        """Raw points: labels [S], offsets [S+1], times and values [N], series after series."""
        ...
