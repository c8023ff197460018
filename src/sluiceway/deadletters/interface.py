"""What others ask of the dead letters: points that governance refused, kept to be looked at.

Invariant: a letter is told to the tenant that sent it only, and shows once its seal is committed.
"""

from typing import Protocol

import msgspec


class Letter(msgspec.Struct, frozen=True):
    """The points of one refused series of one record."""

    tenant: str
    received_ms: int
    sequence: int
    policy_version: int
    reason: str
    """`active_series` or `new_series_per_hour`: the limit that it was past; `fold_full`,
    `fold_late` or `fold_histogram`: why it could not be folded."""
    action: str
    budget: str
    labels: dict[str, str]
    floats: tuple[tuple[int, str], ...]
    """(time in ms, value as Prometheus writes it)."""
    histograms: tuple[tuple[int, str], ...]
    """(time in ms, docs/formats/histogram.md in base64)."""

    @property
    def point_count(self) -> int:
        return len(self.floats) + len(self.histograms)


class Selection(msgspec.Struct, frozen=True):
    """Which letters; None is any. Times are of receipt, half-open."""

    tenant: str | None = None
    reason: str | None = None
    since_ms: int = -(1 << 63)
    until_ms: int = (1 << 63) - 1


class Page(msgspec.Struct, frozen=True):
    """Letters in the order of their files; within a file by tenant, then as applied."""

    letters: tuple[Letter, ...]
    cursor: str | None
    """Where the next page begins; None: there is no more."""
    damaged: int = 0
    """Chunks or files that could not be read and were passed over."""


class Held(msgspec.Struct, frozen=True):
    """What there is, of all tenants."""

    files: int
    letters: int
    points: int
    bytes: int


class DeadLetters(Protocol):
    """Letters of one shard. Thread-safe."""

    def browse(self, selection: Selection, limit: int = 100, cursor: str | None = None) -> Page:
        """The next page of a selection. Blocks for the files it reads, at most `FILES_A_PAGE_MAX`;
        a page may be empty and have a cursor. What expires between two pages is left out.

        Raises: TenantFault (400: not a cursor), BackendUnavailable.
        """
        ...

    def held(self) -> Held:
        """At once."""
        ...
