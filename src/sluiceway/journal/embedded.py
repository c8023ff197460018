"""The journal on the local disk: the Rust committer's groups become futures of the event loop.

Invariant: one wake-up of the loop per group; futures settle in the order of `append`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from sluiceway import kernels
from sluiceway.errors import BackendUnavailable
from sluiceway.journal.fields import fields_of, record_of
from sluiceway.journal.interface import Record


@dataclass(frozen=True, slots=True)
class EmbeddedJournalConfig:
    directory: str = "journal"
    segment_bytes: int = 64 << 20
    bytes_max: int = (1 << 64) - 1
    queue_bytes_max: int = 64 << 20


class EmbeddedJournal:
    """See `Journal`. `salt` is something clients cannot guess; `fence` the writer's number."""

    def __init__(
        self,
        disk: kernels.Disk,
        config: EmbeddedJournalConfig,
        *,
        next_sequence_at_least: int = 0,
        fence: int = 1,
        salt: int = 0,
    ) -> None:
        self._journal = kernels.Journal(
            disk,
            config.directory,
            next_sequence_at_least=next_sequence_at_least,
            fence=fence,
            segment_bytes=config.segment_bytes,
            bytes_max=config.bytes_max,
            queue_bytes_max=config.queue_bytes_max,
            salt=salt,
        )
        self._waiting: deque[asyncio.Future[int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def append(self, record: Record) -> asyncio.Future[int]:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._journal.ack_fd(), self._settle)
        self._journal.append(fields_of(record), record.payload)
        future: asyncio.Future[int] = self._loop.create_future()
        # Tickets are dense, so that the queue's order is theirs.
        self._waiting.append(future)
        return future

    def _settle(self) -> None:
        for first, last, sequence, error in self._journal.drain():
            for place in range(last - first + 1):
                future = self._waiting.popleft()
                if future.done():
                    continue
                if sequence is None:
                    future.set_exception(BackendUnavailable(error))
                else:
                    future.set_result(sequence + place)

    def read(self, from_sequence: int, bytes_max: int) -> tuple[list[Record], int]:
        found, next_sequence = self._journal.read(from_sequence, bytes_max)
        return [record_of(*one) for one in found], next_sequence

    def truncate_before(self, sequence: int) -> None:
        self._journal.truncate_before(sequence)

    def durable_sequence(self) -> int:
        return self._journal.durable_sequence()

    def lag(self, next_sequence: int) -> int:
        return max(0, self._journal.durable_sequence() - next_sequence)

    def close(self) -> None:
        self._journal.close()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._journal.ack_fd())
            self._settle()
        self._loop = None
