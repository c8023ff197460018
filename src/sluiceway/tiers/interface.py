"""What a tier's life cycle asks of the kernel that holds its points.

Invariant: `write_seal` and `merge` make files durable and change nothing for readers; `publish`
shows readers what a manifest has committed, all at once, and is only called after the commit.
"""

from typing import Protocol

import msgspec


class BlockMeta(msgspec.Struct, frozen=True):
    """A finished block, as the kernel reports it."""

    path: str
    bytes: int
    crc32: int
    series: int
    points: int
    histogram_points: int
    min_ms: int
    max_ms: int


class FileReport(msgspec.Struct, frozen=True):
    path: str
    bytes: int
    crc32: int


class LettersMeta(msgspec.Struct, frozen=True):
    """A file of dead letters, as the kernel reports it."""

    path: str
    bytes: int
    crc32: int
    letters: int
    points: int
    first_received_ms: int
    last_received_ms: int


class HoursMeta(msgspec.Struct, frozen=True):
    """A file of recorded hours, as the kernel reports it."""

    path: str
    bytes: int
    crc32: int
    hours: int
    first_hour: int
    last_hour: int


class SealReport(msgspec.Struct, frozen=True):
    """What one seal wrote. Covers records [first_sequence, next_sequence)."""

    block: BlockMeta | None
    days: list[tuple[int, int]]
    state: FileReport
    snapshot: bool
    """The state file is whole: those before it are superfluous."""
    superseded: int
    first_sequence: int
    next_sequence: int
    letters: LettersMeta | None = None
    hours: HoursMeta | None = None
    policy_version: int = 0
    """The highest that a record so far has named."""


class MergeReport(msgspec.Struct, frozen=True):
    outputs: list[BlockMeta]
    superseded: int
    deleted: dict[int, int] = {}
    """Points left out, by the order that took them."""


class TierKernel(Protocol):
    """The shard as checkpoints and merges see it. Answers are JSON of the structs above.

    `write_seal` and `merge` may block for seconds, without the GIL; everything may raise
    BackendUnavailable (the disk) and Corruption.
    """

    def write_seal(self, paths: str, fence: int) -> str:
        """`paths` is a JSON object of `block`, `letters`, `hours`, `state`."""
        ...

    def merge(self, request: str) -> str: ...
    def publish(self, publication: str) -> None: ...
    def erasing(self) -> tuple[list[tuple[int, int]], list[str]]:
        """Pending orders with the series that they take; blocks that may hold their points."""
        ...

    def truncate_journal(self, sequence: int) -> None: ...
