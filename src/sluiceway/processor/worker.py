"""The processor's loop: apply what is durable, freeze when it is time.

Invariant: one thread runs it, and only that thread applies or freezes, so that the shard always
stands at exactly one record. It never writes a file: seals and merges run beside it.
"""

from collections.abc import Callable

from sluiceway.clock import Clock
from sluiceway.kernels import Shard
from sluiceway.tiers.hot import HotConfig, seal_due

WAIT_MS = 200
"""Longest sleep without work: how late a seal by age may be."""
Pace = Callable[[int], None]
"""Asked before each slice with the sequence that comes next; sleeps where it must not come yet."""


def unpaced(next_sequence: int) -> None:
    """As fast as it goes."""


class Worker:
    """Drives one shard with `step`; `on_frozen` is told when a buffer waits to be sealed."""

    def __init__(
        self,
        shard: Shard,
        config: HotConfig,
        clock: Clock,
        snapshot_due: Callable[[], bool],
        part_count: Callable[[], int],
        on_frozen: Callable[[], None],
        pace: Pace = unpaced,
    ) -> None:
        self._shard = shard
        self._config = config
        self._clock = clock
        self._snapshot_due = snapshot_due
        self._part_count = part_count
        self._on_frozen = on_frozen
        self._pace = pace
        self._next_sequence = 0
        self._dirty_since_s: float | None = None
        self._seal_at: int | None = None

    def step(self, wait_ms: int = WAIT_MS) -> str:
        """Apply one slice; freeze if a seal is due. Says what the shard said."""
        self._pace(self._next_sequence)
        event, points, journal_bytes, sequence = self._shard.advance(wait_ms)
        self._next_sequence = sequence
        now_s = self._clock.monotonic_s()
        if event == "applied" and self._dirty_since_s is None:
            self._dirty_since_s = now_s
        age_s = 0.0 if self._dirty_since_s is None else now_s - self._dirty_since_s
        asked = self._seal_at is not None and sequence >= self._seal_at
        if asked or seal_due(self._config, points, journal_bytes, age_s, self._part_count()):
            self._freeze()
        return event

    def ask_seal(self, sequence: int | None) -> None:
        """Any thread: freeze as soon as every record before `sequence` is applied; None takes
        the wish back."""
        self._seal_at = sequence
        if sequence is not None:
            self._shard.interrupt()

    def _freeze(self) -> None:
        """Swap the buffer out, unless the last one still waits for its seal."""
        if self._shard.freeze(self._snapshot_due()):
            self._dirty_since_s = None
            self._seal_at = None
            self._on_frozen()
