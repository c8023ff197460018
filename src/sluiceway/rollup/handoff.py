"""Carrying a task out: write, read back, verify, commit; only then may a source go.

Invariant: before the commit nothing that queries read has changed, after it nothing is missing.
Every step can be the last one of a process: the next process plans the task again, and comes to
the same catalog and the same bytes, or finds it done.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.rollup.boundary import Boundary, unstripped
from sluiceway.rollup.changes import (
    WARM_WINDOW_MS,
    Overtaken,
    day_files,
    dropped,
    expired,
    kept_with_loss,
    merged_file,
    month_files,
    rolled,
    skipped,
    warm_file,
)
from sluiceway.rollup.erasing import Erasing
from sluiceway.rollup.interface import (
    ColdMaker,
    ColdMerger,
    Merger,
    RollKernel,
    RollReport,
    Rules,
    Sketched,
)
from sluiceway.rollup.midnight import Midnight, folds
from sluiceway.rollup.offload import RemoteTier
from sluiceway.rollup.schedule import cold_mark
from sluiceway.rollup.tasks import (
    Compact,
    Drop,
    Erase,
    Expire,
    Forget,
    LetRawGo,
    MakeCold,
    Merge,
    Roll,
    Skip,
    Task,
    Unlink,
    Upload,
)
from sluiceway.tiers.catalog import Catalog, Change, Tier, TierFile, owned
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.tiers.paths import DAY_MS, HOUR_MS, day_of_end_ms, warm_path

PAGES_TOLD_MAX = 20
"""Of those lost, in one line of the log."""
EVERY_SEQUENCE = (1 << 63) - 1
MAKES = (Roll, Merge, MakeCold, Compact, Erase)
"""Tasks that make files."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a task came to."""

    points: int = 0
    windows: int = 0
    lost_points: int = 0


class Handoff:
    """One data directory's. Used by one thread at a time."""

    def __init__(
        self,
        disk: Disk,
        kernel: RollKernel,
        store: CatalogStore,
        merge: Merger | None,
        make_cold: ColdMaker | None,
        clock: Clock,
        boundary: Boundary | None = None,
        merge_cold: ColdMerger | None = None,
        erasing: Erasing | None = None,
        remote: RemoteTier | None = None,
    ) -> None:
        self._disk = disk
        self._kernel = kernel
        self._store = store
        self._merge_files = merge
        self._make_cold = make_cold
        self._boundary = boundary
        self._merge_cold = merge_cold
        self._clock = clock
        self._erasing = erasing
        self._remote = remote
        self._midnight = Midnight(disk, kernel, self._fresh, remote)
        self._orders_seen: int | None = None
        self._log = structlog.get_logger("rollup")

    def carry_out(self, task: Task) -> Done:
        """Blocks, for a large day for minutes. Raises: Overtaken, Corruption, BackendUnavailable,
        Cancelled, OSError; then it may be tried again."""
        self._orders_seen = self._kernel.newest_order()
        if self._remote is not None and isinstance(task, MAKES):
            self._remote.insist()
        try:
            return self._carry_out(task)
        finally:
            self._orders_seen = None
            if self._remote is not None and self._remote.term is not None:
                self._remote.trim(self._store.catalog)  # each commit may have brought some there

    def orders_seen(self) -> int | None:
        """What is being made now follows at least the orders up to this one; None: nothing is."""
        return self._orders_seen

    def _carry_out(self, task: Task) -> Done:
        match task:
            case Roll():
                return self._roll(task)
            case Merge():
                return self._merge(task)
            case MakeCold():
                return self._cold(task)
            case Compact():
                return self._compact(task)
            case Unlink():
                self._unlink(task)
            case Forget():
                for hour in task.hours:
                    self._kernel.forget_dirty(task.tenant, hour, hour + HOUR_MS, EVERY_SEQUENCE)
                self._log.warning("late_points_not_rolled", tenant=task.tenant, hours=task.hours)
            case Skip():
                self._kernel.watch_coverage(task.tenant, task.until_ms)
                self._store.commit(lambda before: skipped(before, task))
            case Expire():
                self._store.commit(lambda before: expired(before, task))
            case Drop():
                if task.whole:
                    self._kernel.leave_coverage(task.tenant)
                self._store.commit(lambda before: dropped(before, task, self._clock.now_ms()))
            case Erase():
                assert self._erasing is not None, "it was told of"
                self._erasing.erase(task, self._store, self._fresh)
            case Upload():
                self._upload(task)
            case LetRawGo():
                change = Change("raw", raw_from_ms=dict(task.raw_from_ms))
                # What cannot be taken back stands in two manifests (docs/formats/catalog.md).
                self._store.commit(change)
                self._store.commit(change)
        return Done()

    def _roll(self, task: Roll) -> Done:
        before = self._store.catalog
        number = before.generation + 1
        final = warm_path(task.tenant, task.from_ms, task.until_ms, number)
        day_ms = day_of_end_ms(task.until_ms)
        is_day = (task.from_ms, task.until_ms) == (day_ms, day_ms + DAY_MS)
        rules = self._rules(task.tenant, "warm") if is_day else ()
        path = self._fresh(unstripped(final) if rules else final)
        # Points that come from here on mark their hours, whether they are pinned or not.
        self._kernel.watch_coverage(task.tenant, task.until_ms)
        request = {
            "tenant": task.tenant,
            "from_ms": task.from_ms,
            "until_ms": task.until_ms,
            "window_ms": WARM_WINDOW_MS,
            "path": path,
            "past_damage": task.past_damage,
        }
        if sketched := self._sketched(task.tenant):
            request["sketches"] = sketched
        text = self._kernel.roll(msgspec.json.encode(request).decode())
        report = msgspec.json.decode(text, type=RollReport)
        self._check(report)
        if report.lost_points:
            told = {"tenant": task.tenant, "from_ms": task.from_ms, "until_ms": task.until_ms}
            lost = {"points": report.lost_points, "pages": report.lost_pages[:PAGES_TOLD_MAX]}
            self._log.error("points_lost", **told, **lost)
            if task.again:
                return self._keep(task, report, path)
        covered = owned(before.of(task.tenant, "warm"), task.from_ms, task.until_ms)
        made: tuple[TierFile, ...] = ()
        if report.windows or covered or report.lost_points:
            file = warm_file(task, number, report)
            if rules:
                file = self._strip_day(file, final, rules, day_ms)
            made = (msgspec.structs.replace(file, before_boundary=not is_day),)
        if rules or not made:
            self._disk.remove(path)
        self.mark_after(before, task.tenant, task.from_ms, task.until_ms)
        self._store.commit(lambda now: rolled(now, task, number, made))
        if report.orders >= self._kernel.newest_order():
            # An order that came meanwhile may have marked an hour that it cuts.
            through = report.through_sequence
            self._kernel.forget_dirty(task.tenant, task.from_ms, task.until_ms, through)
        return Done(report.points, report.windows, report.lost_points)

    def mark_after(self, catalog: Catalog, tenant: str, from_ms: int, until_ms: int) -> None:
        """Said before dirty hours are forgotten: days that were folded from what they held."""
        in_cold = folds(self._rules(tenant, "cold"))
        self._midnight.mark_after(catalog, tenant, from_ms, until_ms, in_cold)

    def _keep(self, task: Roll, report: RollReport, path: str) -> Done:
        """Windows of before the damage are better than what is left of the points."""
        self._disk.remove(path)
        lost = report.lost_points
        self._store.commit(lambda now: kept_with_loss(now, task, lost))
        through = report.through_sequence
        self._kernel.forget_dirty(task.tenant, task.from_ms, task.until_ms, through)
        return Done(lost_points=lost)

    def _check(self, report: RollReport) -> None:
        """What went in is what can be read. Raises: Corruption; the file is gone then."""
        file = report.file
        went_in = (report.series, report.windows, report.points)
        if (file.series, file.windows, file.points) != went_in:
            self._disk.remove(file.path)
            raise Corruption(f"{file.path}: {went_in} went in, {file} is there")

    def _merge(self, task: Merge) -> Done:
        before = self._store.catalog
        files = day_files(before, task.tenant, task.day_ms)
        parts = owned(files, task.day_ms, task.day_ms + DAY_MS)
        # What has passed the boundary stays as it is: hours that came since are not in its totals.
        passed = any(not file.before_boundary for file in files)
        rules = () if passed else self._rules(task.tenant, "warm")
        if len(files) < 2 and not rules:
            raise Overtaken(f"{task}: nothing to merge")
        number = max(file.number for file in files)
        from_ms = min(file.from_ms for file in files)
        until_ms = max(file.until_ms for file in files)
        path = warm_path(task.tenant, from_ms, until_ms, number)
        # Where one of them covers the others, it is the merger.
        made_before = [f for f in files if f.unit[2:] == (from_ms, until_ms, number)]
        whole = made_before[0] if made_before else None
        if whole is not None:
            path = whole.path
        made: tuple[TierFile, ...] = ()
        self._bring(files)
        if whole is None:
            assert self._merge_files is not None, "the planner was told"
            fresh = self._fresh(unstripped(path) if rules else path)
            report = self._merge_files(task.tenant, parts, fresh, WARM_WINDOW_MS)
            made = (merged_file(task.tenant, from_ms, until_ms, number, files, report),)
        if rules:
            source = whole or made[0]
            number = before.generation + 1
            path = warm_path(task.tenant, from_ms, until_ms, number)
            file = self._strip_day(source, path, rules, task.day_ms)
            made = (msgspec.structs.replace(file, number=number, before_boundary=False),)
            if whole is None:
                self._disk.remove(source.path)
        gone = tuple(file.path for file in files if file.path != path)

        def change(now: Catalog) -> Change:
            if day_files(now, task.tenant, task.day_ms) != files:
                raise Overtaken(f"{task}: other files")
            if rules and now.generation >= number:
                raise Overtaken(f"{task}: number {number} is taken")
            return Change("merge", files=made, files_removed=gone)

        self._store.commit(change)
        return Done(windows=sum(file.windows for file in made))

    def _rules(self, tenant: str, tier: Tier) -> Rules:
        return self._boundary.rules(tenant, tier) if self._boundary else ()

    def _sketched(self, tenant: str) -> Sketched:
        return self._boundary.sketched(tenant) if self._boundary else ()

    def _strip_day(self, source: TierFile, path: str, rules: Rules, day_ms: int) -> TierFile:
        """A day's minutes, from the points of the hour before it on."""
        catalog, hour = self._store.catalog, ""
        if folds(rules):
            hour = self._midnight.last_hour(catalog, source.tenant, day_ms)
        try:
            return self._strip(source, path, rules, hour)
        finally:
            if hour:
                self._disk.remove(hour)

    def _strip(self, source: TierFile, path: str, rules: Rules, before: str) -> TierFile:
        assert self._boundary is not None, "it gave the rules"
        try:
            return self._boundary.pass_file(source, self._fresh(path), rules, before)
        except (Corruption, OSError):
            if not before:
                raise
        # Whatever became of the day before, this one is whole.
        return self._boundary.pass_file(source, self._fresh(path), rules)

    def _cold(self, task: MakeCold) -> Done:
        assert self._make_cold is not None, "the planner was told"
        before = self._store.catalog
        files = day_files(before, task.tenant, task.day_ms)
        if len(files) != 1:
            raise Overtaken(f"{task}: {len(files)} warm files")
        number = before.generation + 1
        source = files[0]
        self._bring(files)
        if rules := self._rules(task.tenant, "cold"):
            day = ""
            if folds(rules):
                day = self._midnight.day_before(before, task.tenant, task.day_ms)
            source = self._strip(source, unstripped(source.path), rules, day)
        sketched = self._sketched(task.tenant)
        made = self._make_cold(task.tenant, task.day_ms, source, number, sketched)
        if source is not files[0]:
            self._disk.remove(source.path)

        def change(now: Catalog) -> Change:
            if now.generation >= number or day_files(now, task.tenant, task.day_ms) != files:
                raise Overtaken(f"{task}: other files")
            until_ms = task.day_ms + DAY_MS
            gone = tuple(
                file.path
                for file in now.of(task.tenant, "cold")
                if task.day_ms <= file.from_ms and file.until_ms <= until_ms
            )
            marks = {task.tenant: cold_mark(now, task.tenant, task.day_ms)}
            return Change("cold", files=made, files_removed=gone, rolled_until_ms=marks)

        self._store.commit(change)
        return Done(windows=sum(file.windows for file in made))

    def _compact(self, task: Compact) -> Done:
        assert self._merge_cold is not None, "the planner was told"
        files = month_files(self._store.catalog, task)
        if len({file.unit for file in files}) < 2:
            raise Overtaken(f"{task}: nothing to merge")
        # A merger stands in its newest input's place: what it was made of owns nothing any more.
        number = max(file.number for file in files)
        parts = owned(files, task.from_ms, task.until_ms)
        newest = [file for file in files if file.number == number]
        is_whole = (newest[0].from_ms, newest[0].until_ms) == (task.from_ms, task.until_ms)
        made: tuple[TierFile, ...] = ()
        if not is_whole:
            self._bring(files)
            made = self._merge_cold(task.tenant, task.from_ms, task.until_ms, number, parts)
        gone = tuple(file.path for file in files if not (is_whole and file in newest))

        def change(now: Catalog) -> Change:
            if month_files(now, task) != files:
                raise Overtaken(f"{task}: other files")
            return Change("compact", files=made, files_removed=gone)

        self._store.commit(change)
        return Done(windows=sum(file.windows for file in made))

    def _bring(self, files: Sequence[TierFile]) -> None:
        """Sources that lie on the store alone, here."""
        if self._remote is not None:
            self._remote.bring(files)

    def _upload(self, task: Upload) -> None:
        assert self._remote is not None, "the planner was told"
        before = next((f for f in self._store.catalog.files if f.path == task.path), None)
        if before is None or (before.remote and not self._remote.unplaced([before])):
            raise Overtaken(f"{task}: it went, or is there")
        self._remote.bring([before])  # of a time when others could not take the shard over
        stored = self._remote.upload(before)

        def change(now: Catalog) -> Change:
            if before not in now.files:
                raise Overtaken(f"{task}: another file")
            return Change("upload", files=(stored,))

        self._remote.trim(self._store.commit(change))

    def _unlink(self, task: Unlink) -> None:
        gone = set(task.paths)
        held = [one for one in self._store.catalog.grace if one.remote and one.path in gone]
        if self._remote is not None:
            # First: what the catalog names no more would stay there for ever.
            self._remote.delete(held)
        self._store.commit(Change("unlink", unlinked=task.paths))
        if self._remote is not None:
            self._remote.let_go(held)
        for path in task.paths:
            try:
                self._disk.remove(path)
            except OSError:
                continue  # A stray: gone at the next open.

    def _fresh(self, path: str) -> str:
        """The path, free: what a try before this one has left there goes."""
        directory, _, name = path.rpartition("/")
        self._disk.create_directory(directory)
        if name in self._disk.list(directory):
            self._disk.remove(path)
        return path
