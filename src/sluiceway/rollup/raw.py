"""Which raw points may go: only those that are rolled up, said so in the catalog, and past grace.

Invariant: pure. Here a block goes as a whole or not at all; out of one that others need for longer,
points go by an order (letting_go.py). A block that holds native histograms, which are not rolled
up, stays.
"""

from collections.abc import Mapping, Sequence

from sluiceway.rollup.ages import floor_ms, raw_ms_of
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
    newest_ms = world.catalog.newest_ms
    for view in world.tenants:
        rolled_ms = world.catalog.rolled(view.name).warm
        dirty_ms = min(view.dirty_hours, default=rolled_ms)
        age_ms = 0 if world.pressed else raw_ms_of(view.retention, config)
        aged_ms = min(world.now_ms, rolled_ms, newest_ms) - age_ms
        limits[view.name] = min(rolled_ms, dirty_ms, aged_ms)
    return limits


def superfluous(
    blocks: Sequence[BlockEntry], tenants: Tenants, limits: Mapping[str, int]
) -> list[BlockEntry]:
    """Blocks of which every point is rolled up and lies at or before its tenant's limit."""
    return let_go(blocks, tenants, limits, frozenset(limits))


def let_go(
    blocks: Sequence[BlockEntry],
    tenants: Tenants,
    limits: Mapping[str, int],
    tiered: frozenset[str],
) -> list[BlockEntry]:
    """Blocks of which every point lies at or before its tenant's limit; those with histograms only
    where none of these tenants has tiers."""
    return [
        block
        for block in blocks
        if tenants.get(block.path)
        and (block.histogram_points == 0 or tiered.isdisjoint(tenants[block.path]))
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


def shared_ms(
    world: World, blocks: Sequence[BlockEntry], tenants: Tenants, config: TiersConfig
) -> dict[str, int]:
    """From where on raw is whole once old points are gone out of blocks that stay for others: only
    what changes, and nothing while the disk is nearly full, when writing anew takes room."""
    if world.pressed:
        return {}
    limits = limits_ms(world, config)
    whole = {block.path for block in superfluous(blocks, tenants, limits)}
    raw_ms = {view.name: raw_ms_of(view.retention, config) for view in world.tenants}
    floors = {name: floor_ms(limits[name], raw_ms[name]) for name in limits}
    found: set[str] = set()
    held: set[str] = set()
    for block in blocks:
        for name in tenants.get(block.path, ()):
            if name not in floors or block.min_ms > floors[name] or block.path in whole:
                continue
            if stays_for_others(block, name, tenants, limits):
                (held if block.histogram_points else found).add(name)
    raw_from = world.catalog.raw_from
    return {name: floors[name] for name in sorted(found - held) if floors[name] > raw_from(name)}


def stays_for_others(
    block: BlockEntry, name: str, tenants: Tenants, limits: Mapping[str, int]
) -> bool:
    """Does the block stay for more than a day after `name` can do without it? For less it is not
    written anew."""
    return any(
        other not in limits or limits[other] < limits[name] - DAY_MS
        for other in tenants[block.path]
    )


def holders(blocks: Sequence[BlockEntry], tenants: Tenants, limits: Mapping[str, int]) -> list[str]:
    """Tenants with tiers whose old points stay for the native histograms in their blocks."""
    return sorted(
        {
            name
            for block in blocks
            if block.histogram_points
            for name in tenants.get(block.path, ())
            if name in limits and block.max_ms <= limits[name]
        }
    )
