"""The evaluate client in the role that the engine knows.

Invariant: nothing but names and bounds changes on the way; arrays are handed on as they are.
"""

from typing import Any, cast

from sluiceway.kernels import CancelToken, LabelTable, ShardClient
from sluiceway.query.interface import Cancellation, Floats, StepColumns, Times


class SocketReader:
    """A `ShardReader` over the evaluate protocol."""

    def __init__(self, client: ShardClient) -> None:
        self._client = client

    def evaluate(self, plan: dict[str, Any], cancel: Cancellation | None = None) -> StepColumns:
        return self._client.evaluate(plan, cast(CancelToken | None, cancel))

    def export(
        self, plan: dict[str, Any], cancel: Cancellation | None = None
    ) -> tuple[LabelTable, Times, Times, Floats]:
        # The engine names the first millisecond it wants, the protocol the one before it.
        asked = {**plan, "start_ms": plan["start_ms"] - 1}
        points = self._client.points(asked, cast(CancelToken | None, cancel))
        return points.labels, points.offsets, points.times_ms, points.values
