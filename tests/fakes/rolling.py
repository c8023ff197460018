"""A hot shard and its rollup, driven by hand over any disk: points in, files and catalog out."""

from collections.abc import Mapping
from typing import Any

from fakes.hot import CONFIG, OPTIONS, acked, push, series, settle
from sluiceway.clock import ManualClock
from sluiceway.governance.policy import Policy
from sluiceway.kernels import Disk
from sluiceway.objects.interface import ObjectStore
from sluiceway.processor.hot_shard import HotShard
from sluiceway.rollup.boundary import Boundary
from sluiceway.rollup.cold import OWN_ROWS_MIN, ColdMonths, ColdObjects, ErasedCold
from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.merging import WarmMerger, WarmStripper
from sluiceway.rollup.offload import RemoteTier
from sluiceway.rollup.worker import Rollup
from sluiceway.tenants.limits import Limits, RetentionLimits
from sluiceway.tenants.model import Snapshot, Tenant
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

T0 = 20_000 * DAY_MS
TIERS = TiersConfig(raw_ms=2 * DAY_MS, delay_s=0, grace_s=0, reroll_s_min=0)
KEEPS = RetentionLimits(None, 40 * DAY_MS, 400 * DAY_MS)


class Fleet:
    """One data directory with `default` on a plan that has tiers."""

    def __init__(
        self,
        disk: Disk,
        now_ms: int = T0,
        tiers: TiersConfig = TIERS,
        policy: Policy | None = None,
        own_rows_min: int = OWN_ROWS_MIN,
        objects: ObjectStore | None = None,
        local_bytes_max: int = 0,
        remote: RemoteTier | None = None,
        kept: Mapping[str, RetentionLimits] | None = None,
        **more: Any,
    ) -> None:
        self.policy = policy or Policy()
        self.disk, self.clock = disk, ManualClock(now_ms)
        self.hot = HotShard(disk, OPTIONS, CONFIG, self.clock)
        if objects is not None:
            remote = RemoteTier(objects, disk, local_bytes_max)
        self.store = CatalogStore(disk, self.clock, place=remote.place if remote else None)
        self.store.open()
        self.kept = dict(kept or {"default": KEEPS})
        tenants = Snapshot(1, {}, {name: Tenant(name) for name in self.kept})
        self.rollup = Rollup(
            disk,
            self.hot.shard,
            self.hot,
            self.store,
            lambda: tenants,
            lambda name: Limits(retention=self.kept.get(name, RetentionLimits())),
            tiers,
            self.clock,
            WarmMerger(disk),
            ColdObjects(disk, own_rows_min),
            Boundary(disk, lambda: (1, self.policy), WarmStripper(disk)),
            ColdMonths(disk, own_rows_min),
            ErasedCold(disk, own_rows_min),
            remote,
            **more,
        )
        self.rollup.attach()
        self.hot.load()
        self.drain()

    def drain(self) -> None:
        while self.hot.step() == "applied":
            pass

    def send(
        self,
        *points: tuple[str, int, float],
        received_ms: int | None = None,
        tenant: str = "default",
    ) -> None:
        """(name, time, value) each, acked and applied."""
        rows = [series(name, (time_ms, value)) for name, time_ms, value in points]
        at = self.clock.now_ms() if received_ms is None else received_ms
        assert acked(self.hot, push(self.hot, *rows, received_ms=at, tenant=tenant))
        self.drain()

    def steps(self) -> int:
        """Everything that is due; how many tasks that was."""
        count = 0
        while self.rollup.step():
            count += 1
        return count

    def settle(self) -> None:
        settle(self.hot)

    def close(self) -> None:
        self.hot.shard.close()


def hour(count: float) -> int:
    """That many hours after T0."""
    return T0 + int(count * HOUR_MS)
