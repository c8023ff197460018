"""Old windows from outside: where raw ends, and a day's file joined with what the tiers hold.

Invariant: a day is taken by one commit, or not at all; its files were read back whole before. Of
each series the windows from its first imported one to its last are the import's alone, all others
stay. Taken twice it says the same (docs/import.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from sluiceway.errors import Overloaded, TenantFault
from sluiceway.kernels import Disk, make_cold, merge_warm, verify_warm_file
from sluiceway.rollup.ages import raw_ms_of
from sluiceway.rollup.boundary import Boundary
from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.interface import ColdMaker, RollKernel, WindowsReport
from sluiceway.rollup.offload import RemoteTier
from sluiceway.rollup.schedule import TenantView, World, colds, deletions
from sluiceway.tiers.catalog import Catalog, Change, Marks, Owned, Tier, TierFile, owned
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.tiers.paths import DAY_MS, day_of_end_ms, warm_path

IMPORT_DIRECTORY = "tiers/import"
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
BEHIND_S = 5.0


class Staged(msgspec.Struct, frozen=True):
    """A file that came, as it was read through."""

    path: str
    tenant: str
    window_ms: int
    series: int
    windows: int
    points: int
    min_end_ms: int
    max_end_ms: int


class Replaced(msgspec.Struct, frozen=True):
    """What made room."""

    windows: int = 0
    points: int = 0


class Joined(WindowsReport, frozen=True):
    """A file made of several."""

    replaced: Replaced = Replaced()


class Horizon(msgspec.Struct, frozen=True):
    """Where a tenant's points go: after `horizon_ms` to ingest, else to windows; windows of a tier
    that end at or before its `..._from_ms` are not kept. Without tiers all is None."""

    horizon_ms: int | None = None
    warm_from_ms: int | None = None
    cold_from_ms: int | None = None


class Taken(msgspec.Struct, frozen=True):
    """What a day's file came to."""

    day_ms: int
    tier: Tier
    number: int
    series: int
    windows: int
    points: int
    replaced: Replaced
    held_windows: int
    """Of the day, with those that were there before."""
    held_points: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What a file has seen: records, orders to delete, damaged pages' points."""

    through_sequence: int
    orders: int
    lost_points: int = 0

    def with_parts(self, parts: Sequence[Owned]) -> "Seen":
        """With what the files held that it is joined with; no order is due to any of them."""
        through = min([self.through_sequence, *(part.file.through_sequence for part in parts)])
        return Seen(through, self.orders, max([0, *(part.file.lost_points for part in parts)]))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a tenant's retention leaves room for; None: no such tier."""

    warm_from_ms: int | None
    cold_from_ms: int | None


def horizon_now_ms(view: TenantView, catalog: Catalog, now_ms: int, config: TiersConfig) -> int:
    """Midnight of the first whole day that raw is kept of. Pure."""
    raw_ms = max(now_ms - raw_ms_of(view.retention, config), catalog.raw_from(view.name))
    return -(-raw_ms // DAY_MS) * DAY_MS


def bounds_of(view: TenantView, catalog: Catalog, now_ms: int) -> Bounds:
    """Ends at or before these would expire at once. Pure."""
    reference_ms = min(now_ms, catalog.rolled(view.name).warm or now_ms)

    def from_ms(retention_ms: int | None) -> int | None:
        return None if retention_ms is None else (reference_ms - retention_ms) // DAY_MS * DAY_MS

    retention = view.retention
    return Bounds(from_ms(retention.minute_ms), from_ms(retention.hour_ms))


def behind(view: TenantView, world: World, horizon_ms: int) -> str:
    """Why windows before the horizon cannot be taken yet; empty where they can. Pure."""
    catalog = world.catalog
    if world.pressed:
        return "the disk is nearly full"
    if any(task.tenant == view.name for task in deletions(world)):
        return "what was ordered to be deleted is still to go"
    rolled_ms = catalog.rolled(view.name).warm
    if rolled_ms == 0:
        first_ms = world.spans_ms[0][0] if world.spans_ms else horizon_ms + 1
        return "nothing is rolled up yet" if first_ms <= horizon_ms else ""
    if rolled_ms < horizon_ms:
        return "rollups are behind"
    if any(hour < horizon_ms for hour in view.dirty_hours):
        return "late points are still to be rolled up"
    files = catalog.of(view.name)
    if any(task.day_ms < horizon_ms for task in colds(view, world, files)):
        return "hours are still to be made"
    return ""


class Imports:
    """Carries imports out. Its methods run on the rollup's thread, one at a time."""

    def __init__(
        self,
        disk: Disk,
        kernel: RollKernel,
        store: CatalogStore,
        make_cold: ColdMaker,
        boundary: Boundary,
        config: TiersConfig,
        remote: RemoteTier | None = None,
    ) -> None:
        self._disk = disk
        self._kernel = kernel
        self._store = store
        self._make_cold = make_cold
        self._boundary = boundary
        self._remote = remote
        self._config = config

    def begin(self, view: TenantView | None, world: World) -> Horizon:
        """Make sure that raw begins at the horizon, and name it. Raises: Overloaded (later),
        OSError."""
        if view is None:
            return Horizon()
        catalog, tenant = world.catalog, view.name
        horizon_ms = horizon_now_ms(view, catalog, world.now_ms, self._config)
        if catalog.raw_from(tenant) != horizon_ms:
            reason = behind(view, world, horizon_ms)
            if reason:
                raise Overloaded(BEHIND_S, f"import: {reason}")
            self._kernel.watch_coverage(tenant, horizon_ms)
            marks, kept = catalog.rolled(tenant), catalog.kept_from(tenant)
            # All up to there is rolled, so days without a point have their hours as well.
            rolled = Marks(max(marks.warm, horizon_ms), max(marks.cold, horizon_ms))
            kept = kept if marks.warm else Marks(horizon_ms, horizon_ms)
            change = Change(
                "import",
                rolled_until_ms={tenant: rolled},
                kept_from_ms={tenant: kept},
                raw_from_ms={tenant: horizon_ms},
            )
            # What cannot be taken back stands in two manifests (docs/formats/catalog.md).
            self._store.commit(change)
            self._store.commit(change)
        bounds = bounds_of(view, self._store.catalog, world.now_ms)
        return Horizon(horizon_ms, bounds.warm_from_ms, bounds.cold_from_ms)

    def take(self, view: TenantView | None, world: World, path: str) -> Taken:
        """Join the staged file with its day. The staged file stays, and beside it there may be
        others, whose names begin with its; they are the caller's to remove. Raises: TenantFault
        (400, 409), Overloaded, Corruption, OSError."""
        staged = msgspec.json.decode(verify_warm_file(self._disk, path), type=Staged)
        staged = msgspec.structs.replace(staged, path=path)
        if view is None or staged.tenant != view.name:
            raise refused(400, f"a file of tenant {staged.tenant!r}, or a tenant without tiers")
        day_ms = day_of_end_ms(staged.max_end_ms)
        if staged.windows == 0 or day_of_end_ms(staged.min_end_ms) != day_ms:
            raise refused(400, "not windows of one UTC day")
        catalog = world.catalog
        if day_ms + DAY_MS > min(catalog.raw_from(view.name), catalog.rolled(view.name).warm):
            raise refused(409, "raw points are kept of this day: begin the import first")
        if world.pressed:
            raise Overloaded(BEHIND_S, "import: the disk is nearly full")
        if any(task.tenant == view.name for task in deletions(world)):
            raise Overloaded(BEHIND_S, "import: what was ordered to be deleted is still to go")
        through = self._kernel.coverage(view.name)[1]
        seen = Seen(through, self._kernel.newest_order())
        tier = tier_for(staged, day_ms, bounds_of(view, catalog, world.now_ms), catalog)
        passed = self._pass_boundary(staged, day_ms, "warm")
        if tier == "warm":
            with_hours = view.retention.hour_ms is not None
            told = self._take_warm(passed, day_ms, catalog, seen, with_hours)
        else:
            passed = self._pass_boundary(passed, day_ms, "cold")
            told = self._take_cold(passed, day_ms, catalog, seen)
        counts = {"series": staged.series, "windows": staged.windows, "points": staged.points}
        return msgspec.structs.replace(told, **counts)

    def _pass_boundary(self, staged: Staged, day_ms: int, tier: Tier) -> Staged:
        """The staged file as the policy's rules leave it, where there are any."""
        rules = self._boundary.rules(staged.tenant, tier)
        if not rules:
            return staged
        joined = msgspec.convert(msgspec.structs.asdict(staged) | {"bytes": 0, "crc32": 0}, Joined)
        source = tier_file(tier, staged.tenant, day_ms, 0, joined, Seen(0, 0))
        left = self._boundary.pass_file(source, f"{staged.path}.{tier}", rules)
        return msgspec.structs.replace(
            staged, path=left.path, series=left.series, windows=left.windows, points=left.points
        )

    def _take_warm(
        self, staged: Staged, day_ms: int, before: Catalog, seen: Seen, with_hours: bool
    ) -> Taken:
        tenant, until_ms = staged.tenant, day_ms + DAY_MS
        number = before.generation + 1
        path = warm_path(tenant, day_ms, until_ms, number)
        parts = owned(before.of(tenant, "warm"), day_ms, until_ms)
        joined = self._join(tenant, MINUTE_MS, parts, "warm", [staged.path], day_ms, path)
        seen = seen.with_parts(parts)
        warm = tier_file("warm", tenant, day_ms, number, joined, seen)
        made: tuple[TierFile, ...] = (warm,)
        kept = before.kept_from(tenant)
        marks = Marks(min(kept.warm, day_ms), kept.cold)
        if with_hours:
            made = (warm, *self._hours_of(warm, staged.path, day_ms, number + 1))
            marks = Marks(marks.warm, min(kept.cold, day_ms))
        self._commit(before, tenant, day_ms, made, marks)
        return taken("warm", staged, joined, day_ms, number)

    def _hours_of(
        self, warm: TierFile, beside: str, day_ms: int, number: int
    ) -> tuple[TierFile, ...]:
        """The day's cold objects, past the boundary."""
        if rules := self._boundary.rules(warm.tenant, "cold"):
            warm = self._boundary.pass_file(warm, f"{beside}.hours", rules)
        sketched = self._boundary.sketched(warm.tenant)
        return self._make_cold(warm.tenant, day_ms, warm, number, sketched)

    def _take_cold(self, staged: Staged, day_ms: int, before: Catalog, seen: Seen) -> Taken:
        """A day of which minutes are not kept: its hours alone."""
        tenant, number = staged.tenant, before.generation + 1
        parts = owned(before.of(tenant, "cold"), day_ms, day_ms + DAY_MS)
        sources, hours = [staged.path], f"{staged.path}.hours"
        tier: Tier = "warm"
        if staged.window_ms == MINUTE_MS:
            unit = {
                "directory": f"{staged.path}.cold",
                "tenant": tenant,
                "window_ms": HOUR_MS,
                "from_ms": day_ms,
                "until_ms": day_ms + DAY_MS,
                "number": number,
            }
            text = make_cold(self._disk, staged.path, msgspec.json.encode(unit).decode())
            reports = msgspec.json.decode(text, type=list[dict[str, object]])
            sources = [f"{unit['directory']}/{report['path']}" for report in reports]
            tier = "cold"
        joined = self._join(tenant, HOUR_MS, parts, tier, sources, day_ms, hours)
        seen = seen.with_parts(parts)
        source = tier_file("warm", tenant, day_ms, number, joined, seen)
        sketched = self._boundary.sketched(tenant)
        made = self._make_cold(tenant, day_ms, source, number, sketched)
        kept = before.kept_from(tenant)
        self._commit(before, tenant, day_ms, made, Marks(kept.warm, min(kept.cold, day_ms)))
        return taken("cold", staged, joined, day_ms, number)

    def _join(
        self,
        tenant: str,
        window_ms: int,
        parts: Sequence[Owned],
        came_as: Tier,
        came: Sequence[str],
        day_ms: int,
        path: str,
    ) -> Joined:
        """One warm file of what the day holds, and over it what came."""
        if self._remote is not None:
            self._remote.bring(part.file for part in parts)
        told: list[dict[str, object]] = [
            {"path": p.file.path, "owned_ms": p.ranges_ms, "tier": p.file.tier} for p in parts
        ]
        whole = [[day_ms, day_ms + DAY_MS]]
        told += [
            {"path": one, "owned_ms": whole, "tier": came_as, "replaces": True} for one in came
        ]
        directory = path.rpartition("/")[0]
        self._disk.create_directory(directory)
        if path.rpartition("/")[2] in self._disk.list(directory):
            self._disk.remove(path)
        request = {"tenant": tenant, "window_ms": window_ms, "path": path, "parts": told}
        text = merge_warm(self._disk, msgspec.json.encode(request).decode())
        return msgspec.json.decode(text, type=Joined)

    def _commit(
        self,
        before: Catalog,
        tenant: str,
        day_ms: int,
        made: tuple[TierFile, ...],
        kept: Marks,
    ) -> None:
        tiers = {file.tier for file in made}
        gone = tuple(
            file.path
            for file in before.of(tenant)
            if file.tier in tiers and day_ms <= file.from_ms and file.until_ms <= day_ms + DAY_MS
        )

        def change(now: Catalog) -> Change:
            if now.number != before.number:
                raise Overloaded(1.0, "import: the catalog changed meanwhile")
            return Change("import", made, gone, kept_from_ms={tenant: kept})

        self._store.commit(change)


def tier_for(staged: Staged, day_ms: int, bounds: Bounds, catalog: Catalog) -> Tier:
    """Where a day's windows go. Raises: TenantFault 409 where none keeps them."""
    tenant = staged.tenant
    kept_ms = catalog.kept_from(tenant).warm
    # Minutes that have expired leave hours behind them: minutes before those would claim that
    # there are some in between.
    expired = any(
        file.until_ms > day_ms and file.from_ms < kept_ms for file in catalog.of(tenant, "cold")
    )
    held = day_ms >= kept_ms or not expired
    wanted = bounds.warm_from_ms is None or day_ms >= bounds.warm_from_ms
    if staged.window_ms == MINUTE_MS and held and wanted:
        return "warm"
    if staged.window_ms == HOUR_MS and day_ms >= kept_ms:
        raise refused(409, "windows of minutes are kept of this day, these are hours")
    if staged.window_ms not in (MINUTE_MS, HOUR_MS):
        raise refused(400, f"windows of {staged.window_ms} ms")
    if bounds.cold_from_ms is not None and day_ms >= bounds.cold_from_ms:
        return "cold"
    raise refused(409, "this day is older than what the tenant keeps")


def refused(status: int, words: str) -> TenantFault:
    return TenantFault(status, "sluiceway-import", words)


def tier_file(
    tier: Tier, tenant: str, day_ms: int, number: int, joined: Joined, seen: Seen
) -> TierFile:
    return TierFile(
        tier=tier,
        path=joined.path,
        bytes=joined.bytes,
        crc32=joined.crc32,
        tenant=tenant,
        from_ms=day_ms,
        until_ms=day_ms + DAY_MS,
        number=number,
        window_ms=MINUTE_MS,
        series=joined.series,
        windows=joined.windows,
        points=joined.points,
        through_sequence=seen.through_sequence,
        folded=joined.folded,
        sketches=joined.sketches,
        orders=seen.orders,
        lost_points=seen.lost_points,
    )


def taken(tier: Tier, staged: Staged, joined: Joined, day_ms: int, number: int) -> Taken:
    return Taken(
        day_ms,
        tier,
        number,
        staged.series,
        staged.windows,
        staged.points,
        joined.replaced,
        joined.windows,
        joined.points,
    )
