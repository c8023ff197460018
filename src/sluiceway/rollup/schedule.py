"""The planner: which task is due, out of catalog, clock and what the shard holds.

Invariant: pure. What is planned follows from what is committed, so that a rollup that was killed
anywhere plans the same again; an hour is rolled when it is over and the delay behind it has passed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sluiceway.rollup.ages import raw_ms_of
from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.tasks import (
    Compact,
    Drop,
    Erase,
    Expire,
    Forget,
    MakeCold,
    Merge,
    Roll,
    Skip,
    Task,
    Unlink,
    Upload,
)
from sluiceway.tenants.limits import RetentionLimits
from sluiceway.tiers.catalog import ORDERS_UNKNOWN, Catalog, Marks, Tier, TierFile, owned
from sluiceway.tiers.manifest import Deletion
from sluiceway.tiers.paths import DAY_MS, HOUR_MS, day_of_end_ms, month_of_end_ms

DIRTY_HOURS_ALONE_MAX = 6
"""Of one day: more are rolled with their whole day."""
MERGED_SERIES_MAX = 1_000_000
"""Of a month's objects together, each with its own: one merge holds the labels of all."""
PART_DAYS = 8
"""Of a month that has more: its parts are merged first."""
UNLINKED_MAX = 1_000
"""Files of one commit."""


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant that has tiers."""

    name: str
    retention: RetentionLimits
    dirty_hours: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """What the planner goes by."""

    catalog: Catalog
    now_ms: int
    tenants: tuple[TenantView, ...] = ()
    spans_ms: tuple[tuple[int, int], ...] = ()
    """Times between which raw points are held, of any tenant: ascending, both ends inclusive."""
    rerolled_ms: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """(tenant, day) -> when it was last rolled again."""
    deletions: tuple[Deletion, ...] = ()
    """Orders to delete, done or not."""
    pressed: bool = False
    """The disk is nearly full: what is rolled lets raw points go before their age."""
    stripped: frozenset[str] = frozenset()
    """Tenants of which the policy takes something when windows move to warm."""
    merges: bool = True
    makes_cold: bool = True
    remote: bool = False
    """There is an object store for settled files."""
    unplaced: frozenset[str] | None = None
    """Paths of files that are not on the store of a shard that others may take over, all of which
    belong there; None: it is no such shard."""
    compacts: bool = True


def plan(world: World, config: TiersConfig, avoided: Collection[Task] = ()) -> Task | None:
    """The next task worth doing but those `avoided` (they failed a moment ago)."""
    return next((task for task in tasks(world, config) if task not in avoided), None)


def tasks(world: World, config: TiersConfig) -> Iterator[Task]:
    """All that is due, the most urgent first. Two of one tenant may build on each other: plan anew
    after each."""
    files = files_by_tenant(world.catalog)
    yield from deletions(world)
    yield from unlinks(world, config)
    rolls = [task for view in world.tenants for task in first_rolls(view, world, config)]
    yield from sorted(rolls, key=lambda task: (task.from_ms, task.tenant))
    for view in world.tenants:
        yield from rolls_again(view, world, config, files[view.name])
    for view in world.tenants if world.merges else ():
        yield from merges(view, world, files[view.name])
    if world.makes_cold:
        for view in world.tenants:
            yield from colds(view, world, files[view.name])
    if world.compacts and not world.pressed:
        for view in world.tenants:
            yield from compactions(view, world, config, files[view.name])
    for view in world.tenants:
        yield from expiries(view, world, files[view.name])
    for view in world.tenants if world.remote else ():
        yield from uploads(view, world, files[view.name])


def files_by_tenant(catalog: Catalog) -> dict[str, list[TierFile]]:
    by_tenant: dict[str, list[TierFile]] = defaultdict(list)
    for file in catalog.files:
        by_tenant[file.tenant].append(file)
    return by_tenant


def closed_ms(now_ms: int, config: TiersConfig) -> int:
    """Windows that end at or before it are over, and their delay has passed."""
    return int(now_ms - config.delay_s * 1000) // HOUR_MS * HOUR_MS


def first_rolls(view: TenantView, world: World, config: TiersConfig) -> Iterator[Roll | Skip]:
    """The hours behind the watermark: at most up to the end of its day."""
    if not world.spans_ms:
        return
    rolled_ms = world.catalog.rolled(view.name).warm
    from_ms = rolled_ms or day_of_end_ms(world.spans_ms[0][0])
    closed = closed_ms(world.now_ms, config)
    if from_ms >= closed:
        return
    first = next((max(a, from_ms + 1) for a, b in world.spans_ms if b > from_ms), None)
    empty_until = closed if first is None else min(closed, (first - 1) // HOUR_MS * HOUR_MS)
    day_end = day_of_end_ms(from_ms + 1) + DAY_MS
    if empty_until >= min(day_end, closed):
        yield Skip(view.name, from_ms, empty_until)
    else:
        yield Roll(view.name, from_ms, min(closed, day_end))


def rolls_again(
    view: TenantView, world: World, config: TiersConfig, files: Sequence[TierFile]
) -> Iterator[Roll | Forget]:
    """Hours that got points after they were rolled: alone, or, many, with their day.

    A fold's total runs through its day, so that one of its hours cannot be taken out and made anew:
    it is rolled with its day, or, where raw does not hold that any more, not at all.
    """
    catalog = world.catalog
    folded = {day_of_end_ms(f.until_ms) for f in files if f.tier == "warm" and f.folded}
    rolled_ms, raw_from_ms = catalog.rolled(view.name).warm, catalog.raw_from(view.name)
    lost = tuple(
        hour
        for hour in view.dirty_hours
        if (hour // DAY_MS * DAY_MS if hour // DAY_MS * DAY_MS in folded else hour) < raw_from_ms
    )
    if lost:
        yield Forget(view.name, lost)
    by_day: dict[int, list[int]] = defaultdict(list)
    for hour in view.dirty_hours:
        if hour not in lost and hour + HOUR_MS <= rolled_ms:
            by_day[hour // DAY_MS * DAY_MS].append(hour)
    for day_ms, hours in sorted(by_day.items()):
        last_ms = world.rerolled_ms.get((view.name, day_ms))
        # One that lies ahead is of before the clock was set back.
        if last_ms is not None and 0 <= world.now_ms - last_ms < config.reroll_s_min * 1000:
            continue
        if day_ms in folded or (len(hours) > DIRTY_HOURS_ALONE_MAX and day_ms >= raw_from_ms):
            yield Roll(view.name, day_ms, min(day_ms + DAY_MS, rolled_ms), again=True)
            continue
        for start, end in stretches(hours):
            yield Roll(view.name, start, end, again=True)


def stretches(hours: Sequence[int]) -> list[tuple[int, int]]:
    """Hours, ascending, as ranges."""
    found: list[tuple[int, int]] = []
    for hour in hours:
        if found and found[-1][1] == hour:
            found[-1] = (found[-1][0], hour + HOUR_MS)
        else:
            found.append((hour, hour + HOUR_MS))
    return found


def whole_days(files: Sequence[TierFile], until_ms: int) -> dict[int, list[TierFile]]:
    """Warm files by day, of days that are rolled to their end."""
    by_day: dict[int, list[TierFile]] = defaultdict(list)
    for file in files:
        day_ms = day_of_end_ms(file.until_ms)
        if file.tier == "warm" and day_ms + DAY_MS <= until_ms:
            by_day[day_ms].append(file)
    return dict(sorted(by_day.items()))


def merges(view: TenantView, world: World, files: Sequence[TierFile]) -> Iterator[Merge]:
    rolled_ms = world.catalog.rolled(view.name).warm
    for day_ms, parts in whole_days(files, rolled_ms).items():
        if len(parts) > 1 or waits(view, world, parts):
            yield Merge(view.name, day_ms)


def waits(view: TenantView, world: World, parts: Sequence[TierFile]) -> bool:
    """Is a day of one file still to pass the boundary?"""
    return world.merges and view.name in world.stripped and parts[0].before_boundary


def colds(view: TenantView, world: World, files: Sequence[TierFile]) -> Iterator[MakeCold]:
    """Days of which the warm windows are newer than the cold ones, the oldest first."""
    if view.retention.hour_ms is None:
        return
    cold = [file for file in files if file.tier == "cold"]
    kept_ms = world.catalog.kept_from(view.name).cold
    for day_ms, parts in whole_days(files, world.catalog.rolled(view.name).warm).items():
        if len(parts) > 1 or waits(view, world, parts) or day_ms < kept_ms or not parts[0].windows:
            continue  # merged first, or not wanted any more, or nothing to make
        if not are_made(cold, day_ms, parts):
            yield MakeCold(view.name, day_ms)


def are_made(cold: Sequence[TierFile], day_ms: int, parts: Sequence[TierFile]) -> bool:
    """Are a day's hours made of what its minutes are now?"""
    held = owned(cold, day_ms, day_ms + DAY_MS)
    newest = max((part.number for part in parts if part.windows), default=0)
    return max((piece.file.number for piece in held), default=0) >= newest


def compactions(
    view: TenantView, world: World, config: TiersConfig, files: Sequence[TierFile]
) -> Iterator[Compact]:
    """Months of several units that no point can change any more: they are rolled, raw has gone by
    its age, no hour is dirty, and their hours are those of their minutes."""
    rolled_ms = world.catalog.rolled(view.name).warm
    newest_ms = min(world.now_ms, rolled_ms, world.catalog.newest_ms)
    reference_ms = newest_ms - raw_ms_of(view.retention, config)
    cold = [file for file in files if file.tier == "cold"]
    months: dict[tuple[int, int], list[TierFile]] = defaultdict(list)
    for file in cold:
        months[month_of_end_ms(file.until_ms)].append(file)
    for (from_ms, until_ms), held in sorted(months.items()):
        if len({file.unit for file in held}) < 2 or until_ms > reference_ms:
            continue
        dirty = any(from_ms <= hour < until_ms for hour in view.dirty_hours)
        days = whole_days(files, rolled_ms).items()
        made = all(
            are_made(cold, day_ms, parts) for day_ms, parts in days if from_ms <= day_ms < until_ms
        )
        if made and not dirty:
            yield Compact(view.name, *first_merge(held, from_ms, until_ms))


def first_merge(held: Sequence[TierFile], from_ms: int, until_ms: int) -> tuple[int, int]:
    """What of a month is merged next: all of it, or, where its objects have more series together
    than one merge may hold the labels of, the first of its parts that is not one unit yet."""
    if sum(file.series for file in held) > MERGED_SERIES_MAX:
        for start in range(from_ms, until_ms, PART_DAYS * DAY_MS):
            end = min(start + PART_DAYS * DAY_MS, until_ms)
            inside = {f.unit for f in held if start <= f.from_ms and f.until_ms <= end}
            if len(inside) > 1:
                return start, end
    return from_ms, until_ms


def expiries(view: TenantView, world: World, files: Sequence[TierFile]) -> Iterator[Expire]:
    """Files of which every window is past its retention, counted back from the newest hour that is
    rolled and of which anybody has windows or, where that lies ahead of it, the clock."""
    marks, kept = world.catalog.rolled(view.name), world.catalog.kept_from(view.name)
    reference_ms = min(world.now_ms, marks.warm, world.catalog.newest_ms)
    held: tuple[tuple[Tier, int | None, int], ...] = (
        ("warm", view.retention.minute_ms, kept.warm),
        ("cold", view.retention.hour_ms, kept.cold),
    )
    for tier, retention_ms, kept_ms in held:
        if retention_ms is None:
            continue
        until_ms = (reference_ms - retention_ms) // DAY_MS * DAY_MS
        if tier == "warm" and view.retention.hour_ms is not None:
            until_ms = min(until_ms, marks.cold)  # the hours are made of them first
        paths = tuple(f.path for f in files if f.tier == tier and f.until_ms <= until_ms)
        if paths:
            yield Expire(view.name, tier, max(kept_ms, until_ms), paths)


def uploads(view: TenantView, world: World, files: Sequence[TierFile]) -> Iterator[Upload]:
    """Files that nothing is to replace any more: days that are one file, and cold ones; of a shard
    that others may take over, those of a time when it was none."""
    if world.unplaced is not None:
        for file in files:
            if file.path in world.unplaced:
                yield Upload(view.name, file.path)
        return
    days = whole_days(files, world.catalog.rolled(view.name).warm)
    settled = [
        parts[0] for parts in days.values() if len(parts) == 1 and not waits(view, world, parts)
    ]
    settled += [file for file in files if file.tier == "cold"]
    for file in settled:
        if not file.remote:
            yield Upload(view.name, file.path)


def unlinks(world: World, config: TiersConfig) -> Iterator[Unlink]:
    over_ms = world.now_ms - config.grace_s * 1000
    paths = tuple(held.path for held in world.catalog.grace if held.since_ms <= over_ms)
    if paths:
        yield Unlink(paths[:UNLINKED_MAX])


def deletions(world: World) -> Iterator[Drop | Erase]:
    """What files still hold of what was ordered to be deleted: due whatever the schedule says."""
    if not world.deletions:
        return
    files = files_by_tenant(world.catalog)
    for order in world.deletions:
        held = files.get(order.tenant, ())
        gone = tuple(f.path for f in held if order.whole and made_before(f, order))
        if gone:
            yield Drop(order.tenant, gone, len(gone) == len(held), order.number)
    newest: dict[str, int] = {}
    for order in world.deletions:
        held = files.get(order.tenant, ())
        if not order.whole and any(made_before(file, order) for file in held):
            newest[order.tenant] = max(newest.get(order.tenant, 0), order.number)
    for tenant, number in sorted(newest.items()):
        yield Erase(tenant, number)


def made_before(file: TierFile, order: Deletion) -> bool:
    """May the file hold what the order takes?"""
    if file.orders == ORDERS_UNKNOWN:
        return file.through_sequence <= order.end_sequence
    return file.orders < order.number


def cold_mark(catalog: Catalog, tenant: str, day_ms: int) -> Marks:
    """The marks after a day's hours were made: days are made in their order."""
    marks = catalog.rolled(tenant)
    return Marks(marks.warm, max(marks.cold, day_ms + DAY_MS))
