"""The role `Journal`: every accepted request, kept in one order until a checkpoint covers it.

Invariant: a record's future answers only when the record is durable (fsynced here, committed by
all in-sync replicas over Kafka); what is durable is a prefix of the sequences.
"""

from __future__ import annotations

from asyncio import Future
from dataclasses import dataclass, field
from typing import Protocol

REJECT_REASON_COUNT = 12


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted request. `payload` is the client's body as it came; empty where no row was good.

    Codes are those of docs/formats/record.md. `sequence` is the journal's to give: what a record
    carries into `append` is ignored.
    """

    tenant: str
    payload: bytes
    received_ms: int
    signal: int = 1
    format: int = 1
    encoding: int = 1
    decoder_version: int = 1
    policy_version: int = 0
    dedup_key: int = 0
    points_received: int = 0
    points_rejected: tuple[int, ...] = field(default=(0,) * REJECT_REASON_COUNT)
    age_days: int = 0
    sequence: int = -1


class Journal(Protocol):
    """One partition. `append` belongs to one event loop; the rest may be called from any thread."""

    def append(self, record: Record) -> Future[int]:
        """Queue a record; the future answers with its sequence once it is durable.

        Never blocks. A failed future (BackendUnavailable) does not say that the record is gone:
        after a crash it may still turn up, once. A cancelled one does not take it back.
        Raises: Overloaded (the queue or the budget is full; nothing was queued).
        """
        ...

    def read(self, from_sequence: int, bytes_max: int) -> tuple[list[Record], int]:
        """Durable records in order, about `bytes_max` of them, and the sequence to go on from.

        May block on the disk or the network. Gaps in the sequences are damage, already counted.
        """
        ...

    def truncate_before(self, sequence: int) -> None:
        """Forget older records; only once a checkpoint that covers them is durable. May block."""
        ...

    def durable_sequence(self) -> int:
        """Every sequence below is durable."""
        ...

    def lag(self, next_sequence: int) -> int:
        """Durable records that a reader about to read `next_sequence` has not read."""
        ...

    def close(self) -> None:
        """Commit what is queued, then take no more. Blocks. Idempotent."""
        ...
