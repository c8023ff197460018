"""What a rollup says of itself: values for the API, the command and the page of metrics."""

from collections.abc import Sequence

import msgspec

from sluiceway.rollup.offload import ObjectsStatus
from sluiceway.tiers.catalog import Catalog, TierFile


class TenantStatus(msgspec.Struct, frozen=True):
    """One tenant that has tiers or had them. Times are Unix ms."""

    tenant: str
    rolled_until_ms: int
    cold_until_ms: int
    lag_s: float
    """From the newest hour that is rolled to the newest that is due."""
    dirty_hours: int
    """Rolled hours that got points since: answered from raw until they are rolled again."""
    raw_from_ms: int
    warm_files: int
    warm_bytes: int
    warm_windows: int
    cold_files: int
    cold_bytes: int


class Status(msgspec.Struct, frozen=True):
    """The rollup of one data directory."""

    tiers_on: list[str]
    paused: bool
    schedule: str
    running: str | None
    lag_s: float
    units_total: int
    merges_total: int
    cold_units_total: int
    cold_months_total: int
    points_total: int
    windows_total: int
    failures_total: int
    lost_points_total: int
    """Points of damaged raw pages that windows lack, at most."""
    busy_s_total: float
    last_error: str
    catalog_number: int
    grace_bytes: int
    raw_held_by: list[str]
    """Tenants without tiers whose points keep old raw blocks."""
    tenants: list[TenantStatus]
    objects: ObjectsStatus | None = None
    """Of the object store, where there is one."""


def tenant_status(
    catalog: Catalog,
    tenant: str,
    files: Sequence[TierFile],
    first_ms: int,
    closed_ms: int,
    dirty: int,
) -> TenantStatus:
    """`files` are the tenant's; `first_ms`: of the raw points, for one that was not rolled yet."""
    marks = catalog.rolled(tenant)
    warm = [file for file in files if file.tier == "warm"]
    cold = [file for file in files if file.tier == "cold"]
    behind_ms = max(0, closed_ms - (marks.warm or first_ms))
    return TenantStatus(
        tenant=tenant,
        rolled_until_ms=marks.warm,
        cold_until_ms=marks.cold,
        lag_s=behind_ms / 1000,
        dirty_hours=dirty,
        raw_from_ms=catalog.raw_from(tenant),
        warm_files=len(warm),
        warm_bytes=sum(file.bytes for file in warm),
        warm_windows=sum(file.windows for file in warm),
        cold_files=len(cold),
        cold_bytes=sum(file.bytes for file in cold),
    )
