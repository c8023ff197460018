"""The records of a shard that has its own journal, on its own disk: the default.

Invariant: the shard reads them itself; nothing is handed over by anybody.
"""

from collections.abc import Callable

import msgspec

from sluiceway.kernels import Shard
from sluiceway.processor.interface import Schedule


class OwnJournal:
    """See `RecordSource`."""

    def __init__(self) -> None:
        self._replay_until: int | None = None

    def open(self, shard: Shard, next_sequence: int, fence: int, schedule: Schedule) -> None:
        report = shard.open_journal(next_sequence, fence)
        self._replay_until = msgspec.json.decode(report)["next_sequence"]

    def judge_by(self, policy_version: int, commit: Callable[[Schedule], None]) -> None:
        """Nothing: each record says what it is judged by."""

    def start(self, on_unusable: Callable[[Exception], None] | None) -> None:
        """Nothing: the journal is open."""

    def replay_until(self) -> int | None:
        return self._replay_until
