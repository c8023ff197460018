"""Points and windows as they stand, for export: raw where raw is whole, windows where it has gone.

Invariant: a time is told by one tier alone: raw points after the tenant's raw horizon, minutes
before it as far as they are kept, hours before those. One catalog from beginning to end.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluiceway.errors import BackendUnavailable
from sluiceway.kernels import CancelToken, LabelTable, RawPoints
from sluiceway.query.api.interface import Ask
from sluiceway.query.files import FileAway, Orders, hidden_in
from sluiceway.query.pinned import COVERAGE_MS_MAX, WINDOWS_MS, Tiers, metric_of
from sluiceway.tiers.catalog import Catalog, TierFile
from sluiceway.tiers.ownership import FileRanges, Ownership


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
        by_path = {file.path: file for file in catalog.files}
        hidden = hidden_in(files, orders, by_path)
        with self._local(files, by_path, asked, cancel) as places:
            here = [(places.get(path, path), held, ranges) for path, held, ranges in files]
            gone = {places.get(path, path): told for path, told in hidden.items()}
            found = self._tiers.files.windows(asked, here, cancel, gone)
        labels, columns, marks, taken = found
        window_ms = WINDOWS_MS[tier]
        return Windows(tier, window_ms, from_ms, until_ms, labels, columns, marks, taken)

    @contextmanager
    def _local(
        self,
        files: list[FileRanges],
        by_path: Mapping[str, TierFile],
        asked: Ask,
        cancel: CancelToken | None,
    ) -> Iterator[Mapping[str, str]]:
        """Where the files of the object store are for now, by path. Raises: BackendUnavailable,
        DeadlineExceeded, Cancelled."""
        objects, clock = self._tiers.objects, self._tiers.clock
        remote = {path: by_path[path] for path, _, _ in files if by_path[path].remote}
        if objects is None or not remote:
            yield {}
            return
        until_s = clock.monotonic_s() + asked["timeout_ms"] / 1000
        try:
            with objects.local(remote, lambda: until_s - clock.monotonic_s(), cancel) as places:
                yield places
        except FileAway as away:
            raise BackendUnavailable(f"a file of rollups cannot be read: {away}") from None


def pieces(catalog: Catalog, tenant: str, start_ms: int, end_ms: int) -> list[tuple[str, int, int]]:
    """Which tier tells which part of (start_ms, end_ms]: (tier, from, until), ascending. Pure."""
    raw_ms, kept_ms = catalog.raw_from(tenant), catalog.kept_from(tenant).warm
    edges = [("cold", start_ms, min(end_ms, kept_ms, raw_ms))] if raw_ms else []
    if raw_ms:
        edges.append(("warm", max(start_ms, min(kept_ms, raw_ms)), min(end_ms, raw_ms)))
    edges.append(("raw", max(start_ms, raw_ms) if raw_ms else start_ms, end_ms))
    return [(tier, from_ms, until_ms) for tier, from_ms, until_ms in edges if from_ms < until_ms]
