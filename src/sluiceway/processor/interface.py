"""What the processes ask of the processor: the thread that drives a shard's life.

Invariant: there is one worker per shard, and only it lets the shard seal, merge or forget.
"""

from typing import Any, Protocol


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
