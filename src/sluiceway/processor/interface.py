"""What the processes ask of the processor: the thread that drives a shard's life.

Invariant: there is one worker per shard, and only it lets the shard seal, merge or forget.
"""

from collections.abc import Callable
from typing import Any, Protocol

from sluiceway.kernels import Shard

Schedule = tuple[tuple[int, int], ...]
"""(first sequence, policy version), ascending."""


class ShardWorker(Protocol):
    """Drives `Shard.advance` and answers what it asks for: seals, merges, retention."""

    def start(self) -> None:
        """Start the thread; recovery's replay happens on it, so acks need not wait for it."""
        ...

    def stop(self, timeout_s: float) -> bool:
        """Seal what is in memory and end the thread; true when the seal was committed in time.

        Blocks. False does not mean loss: the journal holds what was not sealed.
        """
        ...

    def flush(self, merge_all: bool) -> None:
        """Return when all that was acked before the call is sealed and durable, and, with
        `merge_all`, merged. Blocks. Raises: BackendUnavailable."""
        ...

    def recovered(self) -> bool:
        """Has the replay of what was durable at the start been applied?"""
        ...

    def stats(self) -> dict[str, Any]:
        """Figures for /metrics and `sluiceway status`; keys as telemetry's names without the
        prefix `sluiceway_` (counters with `_total`), and `points` = {outcome: count}."""
        ...


class RecordSource(Protocol):
    """Where a shard's durable records come from."""

    def open(self, shard: Shard, next_sequence: int, fence: int, schedule: Schedule) -> None:
        """Records from `next_sequence` on are the shard's to apply. Before its state is loaded.
        `schedule` is what `judge_by` made durable. May block. Raises: BackendUnavailable,
        Corruption, OSError."""
        ...

    def judge_by(self, policy_version: int, commit: Callable[[Schedule], None]) -> None:
        """Records that come from now on are judged by this version, where they do not say it
        themselves; `commit` makes the schedule durable before the first of them. Blocks for it.
        Raises: OSError, BackendUnavailable; then nothing has changed."""
        ...

    def start(self, on_unusable: Callable[[Exception], None] | None) -> None:
        """Begin. `on_unusable` is called, on any thread, when they cannot be had for good."""
        ...

    def replay_until(self) -> int | None:
        """The sequence behind what was durable at the start; None while nobody knows."""
        ...
