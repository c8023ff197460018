"""Points and windows as they stand, for export: raw where raw is whole, windows where it has gone.

Invariant: a time is told by one tier alone: raw points after the tenant's raw horizon, minutes
before it as far as they are kept, hours before those. One catalog from beginning to end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluiceway.kernels import CancelToken, LabelTable, RawPoints
from sluiceway.query.api.interface import Ask
from sluiceway.query.files import Orders, hidden_in
from sluiceway.query.pinned import COVERAGE_MS_MAX, WINDOWS_MS, Tiers, metric_of
from sluiceway.tiers.catalog import Catalog
from sluiceway.tiers.ownership import Ownership


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one tier with an end in (from_ms, until_ms]."""

    tier: str
    window_ms: int
    from_ms: int
    until_ms: int
    labels: LabelTable
    columns: dict[str, NDArray[Any]]
    marks: NDArray[np.uint8]
    taken: list[str]
    """Labels that series lost on their way here."""


@dataclass(frozen=True, slots=True)
class Points:
    """Raw points in (from_ms, until_ms], stale markers among them."""

    from_ms: int
    until_ms: int
    raw: RawPoints


class Extractor:
    """Reads what one request asks for. Any thread."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers
        self._ownership = Ownership()

    def extract(
        self, request: Ask, warnings: list[str], cancel: CancelToken | None = None
    ) -> Iterator[Windows | Points]:
        """`request`: tenant, matchers, start_ms, end_ms, limits, timeout_ms; the oldest first.
        Raises: TenantFault (a limit), Corruption, and what the shard raises."""
        tenant, start_ms, end_ms = request["tenant"], request["start_ms"], request["end_ms"]
        catalog, said = self._tiers.look()
        orders: Orders = ()
        if start_ms < catalog.raw_from(tenant):
            told = self._tiers.hot.coverage(
                {"tenant": tenant, "timeout_ms": COVERAGE_MS_MAX}, cancel
            )
            orders = told.get("deletions", ())
            # Newer than what the shard said: an order that is done by then is in its files.
            catalog, said = self._tiers.look()
        warnings += said
        for tier, from_ms, until_ms in pieces(catalog, tenant, start_ms, end_ms):
            asked = {**request, "start_ms": from_ms, "end_ms": until_ms}
            if tier == "raw":
                raw = self._tiers.hot.points({**asked, "keep_stale": True}, cancel)
                warnings += raw.warnings
                yield Points(from_ms, until_ms, raw)
            else:
                yield self._windows(catalog, orders, tier, asked, cancel)

    def _windows(
        self,
        catalog: Catalog,
        orders: Orders,
        tier: str,
        asked: Ask,
        cancel: CancelToken | None,
    ) -> Windows:
        owned = self._ownership.of(catalog, asked["tenant"], tier)
        from_ms, until_ms = asked["start_ms"], asked["end_ms"]
        files = owned.files(from_ms, until_ms, metric_of(asked["matchers"]))
        hidden = hidden_in(files, orders, {file.path: file for file in catalog.files})
        found = self._tiers.files.windows(asked, files, cancel, hidden)
        labels, columns, marks, taken = found
        window_ms = WINDOWS_MS[tier]
        return Windows(tier, window_ms, from_ms, until_ms, labels, columns, marks, taken)


def pieces(catalog: Catalog, tenant: str, start_ms: int, end_ms: int) -> list[tuple[str, int, int]]:
    """Which tier tells which part of (start_ms, end_ms]: (tier, from, until), ascending. Pure."""
    raw_ms, kept_ms = catalog.raw_from(tenant), catalog.kept_from(tenant).warm
    edges = [("cold", start_ms, min(end_ms, kept_ms, raw_ms))] if raw_ms else []
    if raw_ms:
        edges.append(("warm", max(start_ms, min(kept_ms, raw_ms)), min(end_ms, raw_ms)))
    edges.append(("raw", max(start_ms, raw_ms) if raw_ms else start_ms, end_ms))
    return [(tier, from_ms, until_ms) for tier, from_ms, until_ms in edges if from_ms < until_ms]
