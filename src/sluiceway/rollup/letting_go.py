"""Old raw points of tenants that keep them for less time than those they share files with.

Invariant: an order follows only what the catalog says is gone from raw (tenants with tiers), or
what is past the tenant's own time; it takes points and no window. Orders come in batches, the next
one when the last is done; so what a damaged block keeps pending puts off no merge of what comes
later. Where all that a file holds is past its time there is no order: the file goes as a whole.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import SluicewayError
from sluiceway.rollup.keeping import Keeping
from sluiceway.rollup.raw import Tenants, let_go, stays_for_others
from sluiceway.tiers.manifest import BlockEntry, Deletion, Version

LOOK_S = 2.0
AGAIN_S = 3_600.0
"""Before points are taken once more that came after an order for their time."""
BATCH_MAX = 32
"""Orders at once; what people order to be deleted has room beside them."""
log = structlog.get_logger("letting_go")


class ExpiringShard(Protocol):
    """What points go from: the hot shard."""

    def recovered(self) -> bool: ...
    def version(self) -> Version: ...
    def expire_points(self, tenant: str, before_ms: int) -> Deletion: ...


class LettingGo:
    """One thread; `step` in simulations."""

    def __init__(self, shard: ExpiringShard, keeping: Keeping, clock: Clock) -> None:
        self._shard = shard
        self._keeping = keeping
        self._clock = clock
        self._ordered: dict[str, tuple[int, int, float]] = {}
        """By tenant: the last order's time and end, and when it was given (monotonic)."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluiceway-letting-go", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def step(self) -> int:
        """Order what is due; how many orders. Raises: as `expire_points` does."""
        self._keeping.look()
        if not self._shard.recovered():
            return 0
        version = self._shard.version()
        if any(order.raw_only for order in version.pending()):
            return 0
        floors_ms, tiered = self._keeping.floors_ms(version.blocks)
        if not floors_ms:
            return 0
        tenants = self._keeping.tenants_of(version.blocks)
        newest = shared(version.blocks, tenants, floors_ms, tiered)
        made = 0
        for name, last_sequence in sorted(newest.items()):
            if made < BATCH_MAX and self._is_due(name, floors_ms[name], last_sequence):
                order = self._shard.expire_points(name, floors_ms[name] + 1)
                now_s = self._clock.monotonic_s()
                self._ordered[name] = (floors_ms[name], order.end_sequence, now_s)
                log.info("raw_points_go", tenant=name, until_ms=floors_ms[name])
                made += 1
        return made

    def _is_due(self, name: str, floor_ms: int, last_sequence: int) -> bool:
        before = self._ordered.get(name)
        if before is None or floor_ms > before[0]:
            return True
        waited_s = self._clock.monotonic_s() - before[2]
        return last_sequence >= before[1] and waited_s >= AGAIN_S

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.step()
            except (SluicewayError, OSError) as error:
                log.error("raw_points_stay", error=str(error))


def shared(
    blocks: Sequence[BlockEntry],
    tenants: Tenants,
    floors_ms: Mapping[str, int],
    tiered: frozenset[str],
) -> dict[str, int]:
    """Tenants that may have points at or before their floor in files that stay, with tiers in those
    that stay for others, and up to which record these stand. Native histograms are rolled up
    nowhere: of a tenant with tiers nothing goes while a file of that time holds some."""
    whole = {block.path for block in let_go(blocks, tenants, floors_ms, tiered)}
    found: dict[str, int] = {}
    held: set[str] = set()
    for block in blocks:
        for name in tenants.get(block.path, ()):
            if name not in floors_ms or block.min_ms > floors_ms[name] or block.path in whole:
                continue
            if name in tiered and not stays_for_others(block, name, tenants, floors_ms):
                continue  # its windows answer already
            found[name] = max(found.get(name, -1), block.last_sequence)
            if block.histogram_points and name in tiered:
                held.add(name)
    return {name: last for name, last in found.items() if name not in held}
