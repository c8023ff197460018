"""Which raw points may go: only those that are rolled up, said so in the catalog, and past grace.

Invariant: pure. A block goes as a whole or not at all; one that holds native histograms, which are
not rolled up, or points of a tenant without tiers stays.
"""

from collections.abc import Mapping, Sequence

from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.schedule import World
from sluiceway.tiers.manifest import BlockEntry
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

Tenants = Mapping[str, Sequence[str]]
"""Who has points in a block, by its path."""


def limits_ms(world: World, config: TiersConfig) -> dict[str, int]:
    """By tenant with tiers: raw points at or before it are rolled up, none of their hours is
    dirty, and they have been kept for long enough; while the disk is nearly full, age does not
    count."""
    limits = {}
    for view in world.tenants:
        rolled_ms = world.catalog.rolled(view.name).warm
        dirty_ms = min(view.dirty_hours, default=rolled_ms)
        age_ms = 0 if world.pressed else config.raw_ms
        aged_ms = min(world.now_ms, rolled_ms) - age_ms
        limits[view.name] = min(rolled_ms, dirty_ms, aged_ms)
    return limits


def superfluous(
    blocks: Sequence[BlockEntry], tenants: Tenants, limits: Mapping[str, int]
) -> list[BlockEntry]:
    """Blocks of which every point lies at or before its tenant's limit."""
    return [
        block
        for block in blocks
        if block.histogram_points == 0
        and tenants.get(block.path)
        and all(name in limits and block.max_ms <= limits[name] for name in tenants[block.path])
    ]


def horizon_ms(
    world: World, blocks: Sequence[BlockEntry], tenants: Tenants, limits: Mapping[str, int]
) -> dict[str, int]:
    """From where on raw is whole once the superfluous blocks are gone: only what changes. While the
    disk is nearly full, a day of the oldest at a time."""
    found: dict[str, int] = {}
    gone = superfluous(blocks, tenants, limits)
    oldest_ms = min((block.max_ms for block in gone), default=0)
    for block in gone:
        if world.pressed and block.max_ms > oldest_ms + DAY_MS // 2:
            continue
        from_ms = -(-block.max_ms // HOUR_MS) * HOUR_MS
        for name in tenants[block.path]:
            found[name] = max(found.get(name, 0), min(from_ms, limits[name]))
    raw_from = world.catalog.raw_from
    return {name: ms for name, ms in sorted(found.items()) if ms > raw_from(name)}


def holders(blocks: Sequence[BlockEntry], tenants: Tenants, limits: Mapping[str, int]) -> list[str]:
    """Tenants without tiers that keep old blocks in which others' superfluous points lie."""
    found: set[str] = set()
    for block in blocks:
        names = tenants.get(block.path, ())
        ready = [name for name in names if name in limits and block.max_ms <= limits[name]]
        if ready:
            found.update(name for name in names if name not in limits)
    return sorted(found)
