"""Which raw blocks may go, and from where on raw is whole then."""

from dataclasses import replace

import msgspec

from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.raw import holders, horizon_ms, limits_ms, shared_ms, superfluous
from sluiceway.rollup.schedule import TenantView, World
from sluiceway.tenants.limits import RetentionLimits
from sluiceway.tiers.catalog import Catalog, Marks, TierFile
from sluiceway.tiers.manifest import BlockEntry
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

CONFIG = TiersConfig(raw_ms=3 * DAY_MS)
T0 = 1_000 * DAY_MS
OWNERS = {"0": ["a"], "1": ["a", "b"], "2": ["a"], "3": ["a", "free"], "4": ["a"]}


def block(day: int, histograms: int = 0) -> BlockEntry:
    first = T0 + day * DAY_MS
    return BlockEntry(str(day), 1, 1, 1, 9, histograms, first + 1, first + DAY_MS - 1, day, day)


def world(dirty_a: tuple[int, ...] = (), pressed: bool = False) -> World:
    rolled = {"a": Marks(T0 + 8 * DAY_MS), "b": Marks(T0 + DAY_MS + HOUR_MS)}
    views = tuple(
        TenantView(name, RetentionLimits(None, DAY_MS, None), dirty)
        for name, dirty in (("a", dirty_a), ("b", ()))
    )
    day = TierFile("warm", "w", 1, 1, "a", T0 + 7 * DAY_MS, T0 + 8 * DAY_MS, 1, 60_000, 1, 1, 1, 1)
    catalog = Catalog(files=(day,), rolled_until_ms=rolled)
    spans = ((T0 + 1, T0 + 9 * DAY_MS),)
    return World(catalog, T0 + 9 * DAY_MS, views, spans, pressed=pressed)


def gone(held: World, *blocks: BlockEntry) -> list[str]:
    return [b.path for b in superfluous(blocks, OWNERS, limits_ms(held, CONFIG))]


BLOCKS = tuple(block(day) for day in range(5))


def test_only_what_is_rolled_for_all_its_tenants_and_old_enough() -> None:
    assert gone(world(), *BLOCKS) == ["0", "2", "4"]
    assert gone(world(), *(block(day, histograms=1) for day in range(5))) == []
    assert gone(world(), replace_path(BLOCKS[0], "unknown")) == []


def replace_path(entry: BlockEntry, path: str) -> BlockEntry:
    return msgspec.structs.replace(entry, path=path)


def test_a_dirty_hour_keeps_all_from_it_on() -> None:
    assert gone(world((T0 + 2 * DAY_MS + HOUR_MS,)), *BLOCKS) == ["0"]


def test_a_full_disk_lets_the_oldest_day_go_before_its_age_but_nothing_unrolled() -> None:
    young = replace(CONFIG, raw_ms=100 * DAY_MS)
    assert superfluous(BLOCKS, OWNERS, limits_ms(world(), young)) == []
    held = world(pressed=True)
    told = horizon_ms(held, BLOCKS, OWNERS, limits_ms(held, young))
    assert told == {"a": T0 + DAY_MS}, "day by day"
    dirty = limits_ms(world((T0 + HOUR_MS,), pressed=True), young)
    assert superfluous(BLOCKS, OWNERS, dirty) == []


def test_the_horizon_is_told_for_whoever_loses_points_and_only_when_it_moves() -> None:
    held = world()
    limits = limits_ms(held, CONFIG)
    told = horizon_ms(held, BLOCKS, OWNERS, limits)
    assert told == {"a": T0 + 5 * DAY_MS}
    after = replace(held, catalog=Catalog(raw_from_ms=told))
    assert horizon_ms(after, BLOCKS, OWNERS, limits) == {}


def test_whose_points_stay_for_histograms_is_named() -> None:
    assert holders(BLOCKS, OWNERS, limits_ms(world(), CONFIG)) == []
    held = tuple(block(day, histograms=1) for day in range(2))
    assert holders(held, OWNERS, limits_ms(world(), CONFIG)) == ["a"]


def test_points_in_blocks_of_others_go_in_steps_of_an_eighth() -> None:
    told = shared_ms(world(), BLOCKS, OWNERS, CONFIG)
    assert told == {"a": T0 + 5 * DAY_MS}, "blocks 1 and 3 stay for others; b's are too young"
    later = replace(
        world(),
        now_ms=T0 + 9 * DAY_MS,
        catalog=Catalog(
            files=(msgspec.structs.replace(world().catalog.files[0], until_ms=T0 + 9 * DAY_MS),),
            rolled_until_ms={"a": Marks(T0 + 8 * DAY_MS + 20 * HOUR_MS), "b": Marks(T0)},
        ),
    )
    told = shared_ms(later, BLOCKS, OWNERS, CONFIG)
    assert told == {"a": T0 + 5 * DAY_MS + 18 * HOUR_MS}, "three days go nine hours at a time"
    done = replace(later, catalog=msgspec.structs.replace(later.catalog, raw_from_ms=told))
    assert shared_ms(done, BLOCKS, OWNERS, CONFIG) == {}
    assert shared_ms(replace(later, pressed=True), BLOCKS, OWNERS, CONFIG) == {}
    held = tuple(block(day, histograms=1) for day in range(5))
    assert shared_ms(later, held, OWNERS, CONFIG) == {}, "histograms are rolled up nowhere"


def test_blocks_that_go_soon_are_not_written_anew() -> None:
    held = world()
    alone = {key: ["a"] for key in OWNERS}
    assert shared_ms(held, BLOCKS, alone, CONFIG) == {}
    near = Catalog(rolled_until_ms={"a": Marks(T0 + 8 * DAY_MS), "b": Marks(T0 + 7 * DAY_MS)})
    both = {key: ["a", "b"] for key in OWNERS}
    assert shared_ms(replace(held, catalog=near), BLOCKS, both, CONFIG) == {}


def test_a_tenants_own_time_counts_where_it_is_less() -> None:
    own = RetentionLimits(DAY_MS + 1, DAY_MS, None)
    views = tuple(replace(view, retention=own) for view in world().tenants)
    assert limits_ms(replace(world(), tenants=views), CONFIG)["a"] == T0 + 6 * DAY_MS
    more = tuple(replace(view, retention=RetentionLimits(9 * DAY_MS, DAY_MS)) for view in views)
    assert limits_ms(replace(world(), tenants=more), CONFIG)["a"] == T0 + 5 * DAY_MS
