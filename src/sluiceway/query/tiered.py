"""One reader over all tiers: each query reads through the tiers as they stand when it comes.

Invariant: files that are unlinked are closed at the first query after that.
"""

from typing import Any

from sluiceway.kernels import CancelToken, LabelTable
from sluiceway.query.api.interface import Ask
from sluiceway.query.interface import PointSeries, StepColumns
from sluiceway.query.pinned import PinnedTiers, Tiers
from sluiceway.query.stitched import distinct_series
from sluiceway.tiers.ownership import Ownership


class TieredReader:
    """Tiers as one shard; a TiersReader. Thread-safe; `pinned` is what a query reads through."""

    def __init__(self, tiers: Tiers) -> None:
        self.tiers = self._tiers = tiers
        self._ownership = Ownership()
        self._number = 0

    def pinned(self) -> "PinnedTiers":
        """The tiers as they stand now, for one query."""
        pinned = PinnedTiers(self._tiers, self._ownership)
        if pinned.catalog.number != self._number:
            # Files that are unlinked must not take the disk's room for having been read once.
            self._number = pinned.catalog.number
            named = {file.path for file in pinned.catalog.files}
            self._tiers.files.keep_only(named | {held.path for held in pinned.catalog.grace})
        return pinned

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> StepColumns:
        return self.pinned().evaluate(plan, cancel)

    def points(self, request: Ask, cancel: CancelToken | None = None) -> PointSeries:
        return self.pinned().points(request, cancel)

    def label_names(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]:
        hot = self._tiers.hot.label_names(request, cancel, warnings)
        ask = self._tiers.files.label_names
        found = self.pinned().beyond_raw(ask, request, cancel, warnings)
        return hot if found is None else sorted({*hot, *found})

    def label_values(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]:
        hot = self._tiers.hot.label_values(request, cancel, warnings)
        ask = self._tiers.files.label_values
        found = self.pinned().beyond_raw(ask, request, cancel, warnings)
        return hot if found is None else sorted({*hot, *found})

    def series(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> LabelTable:
        hot = self._tiers.hot.series(request, cancel, warnings)
        ask = self._tiers.files.series
        found = self.pinned().beyond_raw(ask, request, cancel, warnings)
        return hot if found is None else distinct_series(LabelTable.concat([hot, found]))

    def metadata(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self._tiers.hot.metadata(request, cancel)

    def stats(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self._tiers.hot.stats(request, cancel)

    def cardinality(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> dict[str, Any]:
        return self._tiers.hot.cardinality(request, cancel, warnings)

    def ledger(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        return self._tiers.hot.ledger(request, cancel)
