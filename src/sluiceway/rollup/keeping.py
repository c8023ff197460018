"""How long raw points are kept, by the tenants' records of each moment, told to door and merges.

Invariant: `past` (what the catalog has let go of for longer than the grace) is the rollup's to say;
of tenants without tiers nobody is asked but their records, the newest point and the clock.
"""

import threading
from collections.abc import Callable, Collection, Sequence

from sluiceway.clock import Clock
from sluiceway.rollup import raw
from sluiceway.rollup.ages import Ages, floor_ms, look, own_floors_ms, raw_ms_of
from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.interface import HotTier, RollKernel
from sluiceway.tenants.limits import Limits
from sluiceway.tenants.model import Snapshot
from sluiceway.tiers.manifest import BlockEntry


class Keeping:
    """Any thread."""

    def __init__(
        self,
        kernel: RollKernel,
        hot: HotTier,
        tenants: Callable[[], Snapshot],
        limits: Callable[[str], Limits],
        rolled: Callable[[], Collection[str]],
        config: TiersConfig,
        clock: Clock,
        retention_ms: int,
    ) -> None:
        """`rolled`: tenants with windows. `retention_ms`: the server's, of raw points of tenants
        without tiers; 0 is for ever."""
        self._kernel, self._hot = kernel, hot
        self._tenants, self._limits, self._rolled = tenants, limits, rolled
        self._config, self._clock = config, clock
        self._retention_ms = retention_ms
        self._lock = threading.Lock()
        self._ages: Ages | None = None
        self.known: raw.Tenants = {}
        """Who has points in each block, as of the last look."""
        self.past: dict[str, int] = {}

    def look(self) -> Ages:
        """The ages of this moment; the door refuses what is older from now on."""
        with self._lock:
            kept = (self._config, self._rolled(), self._retention_ms)
            before, ages = self._ages, look(self._tenants(), self._limits, *kept)
            if before is None or ages.door_days != before.door_days:
                self._kernel.set_age_days(ages.door_days)
            if ages.apart_ms and (before is None or ages.apart_ms != before.apart_ms):
                self._hot.cut_by(ages.apart_ms)
            self._ages = ages
            return ages

    def floors_ms(self, blocks: Sequence[BlockEntry]) -> tuple[dict[str, int], frozenset[str]]:
        """Up to where raw points of each tenant may go now, and who of them has tiers."""
        ages, now_ms = self._ages or Ages(), self._clock.now_ms()
        floors = own_floors_ms(blocks, ages.own_ms, now_ms)
        for name, ms in self.past.items():
            if ms and name in ages.tiered:
                raw_ms = raw_ms_of(ages.tiered[name], self._config)
                # Never by the pressure of the disk: what the door still takes is not taken away.
                floors[name] = min(ms, floor_ms(now_ms - raw_ms, raw_ms))
        return floors, frozenset(ages.tiered)

    def tenants_of(self, blocks: Sequence[BlockEntry]) -> raw.Tenants:
        """Who has points in each of the blocks."""
        if any(block.path not in self.known for block in blocks):
            self.known = self._kernel.block_tenants()
        return self.known

    def whole(self, blocks: Sequence[BlockEntry]) -> list[BlockEntry]:
        """Blocks that nobody needs any more."""
        floors_ms, tiered = self.floors_ms(blocks)
        if not floors_ms:
            return []
        return raw.let_go(blocks, self.tenants_of(blocks), floors_ms, tiered)
