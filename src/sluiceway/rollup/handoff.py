"""Carrying a task out: write, read back, verify, commit; only then may a source go.

Invariant: before the commit nothing that queries read has changed, after it nothing is missing.
Every step can be the last one of a process: the next process plans the task again, and comes to
the same catalog and the same bytes, or finds it done.
"""

from dataclasses import dataclass

import msgspec
import structlog

from sluiceway.errors import Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.rollup.interface import (
    ColdMaker,
    Merger,
    RollKernel,
    RollReport,
    WindowsReport,
)
from sluiceway.rollup.schedule import cold_mark
from sluiceway.rollup.tasks import (
    Drop,
    Expire,
    Forget,
    LetRawGo,
    MakeCold,
    Merge,
    Roll,
    Skip,
    Task,
    Unlink,
)
from sluiceway.tiers.catalog import Catalog, Change, Marks, TierFile, owned
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.tiers.paths import DAY_MS, HOUR_MS, day_of_end_ms, warm_path

WARM_WINDOW_MS = 60_000
EVERY_SEQUENCE = (1 << 63) - 1


class Overtaken(SluicewayError):
    """Somebody else changed the catalog meanwhile: plan again."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a task came to."""

    points: int = 0
    windows: int = 0


class Handoff:
    """One data directory's. Used by one thread at a time."""

    def __init__(
        self,
        disk: Disk,
        kernel: RollKernel,
        store: CatalogStore,
        merge: Merger | None,
        make_cold: ColdMaker | None,
    ) -> None:
        self._disk = disk
        self._kernel = kernel
        self._store = store
        self._merge_files = merge
        self._make_cold = make_cold
        self._log = structlog.get_logger("rollup")

    def carry_out(self, task: Task) -> Done:
        """Blocks, for a large day for minutes. Raises: Overtaken, Corruption, BackendUnavailable,
        Cancelled, OSError; then it may be tried again."""
        match task:
            case Roll():
                return self._roll(task)
            case Merge():
                return self._merge(task)
            case MakeCold():
                return self._cold(task)
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
                gone = (task.tenant,) if task.whole else ()
                self._store.commit(Change("delete", files_removed=task.paths, tenants_removed=gone))
            case LetRawGo():
                change = Change("raw", raw_from_ms=dict(task.raw_from_ms))
                # What cannot be taken back stands in two manifests (docs/formats/catalog.md).
                self._store.commit(change)
                self._store.commit(change)
        return Done()

    def _roll(self, task: Roll) -> Done:
        before = self._store.catalog
        number = before.generation + 1
        path = self._fresh(warm_path(task.tenant, task.from_ms, task.until_ms, number))
        # Points that come from here on mark their hours, whether they are pinned or not.
        self._kernel.watch_coverage(task.tenant, task.until_ms)
        request = {
            "tenant": task.tenant,
            "from_ms": task.from_ms,
            "until_ms": task.until_ms,
            "window_ms": WARM_WINDOW_MS,
            "path": path,
        }
        text = self._kernel.roll(msgspec.json.encode(request).decode())
        report = msgspec.json.decode(text, type=RollReport)
        self._check(report)
        covered = owned(before.of(task.tenant, "warm"), task.from_ms, task.until_ms)
        made: tuple[TierFile, ...] = ()
        if report.windows or covered:
            made = (warm_file(task, number, report),)
        else:
            self._disk.remove(path)
        self._store.commit(lambda now: rolled(now, task, number, made))
        self._kernel.forget_dirty(task.tenant, task.from_ms, task.until_ms, report.through_sequence)
        return Done(report.points, report.windows)

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
        if len(files) < 2:
            raise Overtaken(f"{task}: nothing to merge")
        number = max(file.number for file in files)
        from_ms = min(file.from_ms for file in files)
        until_ms = max(file.until_ms for file in files)
        path = warm_path(task.tenant, from_ms, until_ms, number)
        report: WindowsReport | None = None
        made: tuple[TierFile, ...] = ()
        # Where one of them covers the others, it is the merger.
        if all(file.path != path for file in files):
            assert self._merge_files is not None, "the planner was told"
            report = self._merge_files(task.tenant, parts, self._fresh(path), WARM_WINDOW_MS)
            made = (merged_file(task.tenant, from_ms, until_ms, number, files, report),)
        gone = tuple(file.path for file in files if file.path != path)

        def change(now: Catalog) -> Change:
            if day_files(now, task.tenant, task.day_ms) != files:
                raise Overtaken(f"{task}: other files")
            return Change("merge", files=made, files_removed=gone)

        self._store.commit(change)
        return Done(windows=report.windows if report else 0)

    def _cold(self, task: MakeCold) -> Done:
        assert self._make_cold is not None, "the planner was told"
        before = self._store.catalog
        files = day_files(before, task.tenant, task.day_ms)
        if len(files) != 1:
            raise Overtaken(f"{task}: {len(files)} warm files")
        number = before.generation + 1
        made = self._make_cold(task.tenant, task.day_ms, files[0], number)

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

    def _unlink(self, task: Unlink) -> None:
        self._store.commit(Change("unlink", unlinked=task.paths))
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


def day_files(catalog: Catalog, tenant: str, day_ms: int) -> tuple[TierFile, ...]:
    held = catalog.of(tenant, "warm")
    return tuple(file for file in held if day_of_end_ms(file.until_ms) == day_ms)


def warm_file(task: Roll, number: int, report: RollReport) -> TierFile:
    file = report.file
    return TierFile(
        tier="warm",
        path=file.path,
        bytes=file.bytes,
        crc32=file.crc32,
        tenant=task.tenant,
        from_ms=task.from_ms,
        until_ms=task.until_ms,
        number=number,
        window_ms=WARM_WINDOW_MS,
        series=file.series,
        windows=file.windows,
        points=file.points,
        through_sequence=report.through_sequence,
    )


def merged_file(
    tenant: str,
    from_ms: int,
    until_ms: int,
    number: int,
    files: tuple[TierFile, ...],
    report: WindowsReport,
) -> TierFile:
    return TierFile(
        tier="warm",
        path=report.path,
        bytes=report.bytes,
        crc32=report.crc32,
        tenant=tenant,
        from_ms=from_ms,
        until_ms=until_ms,
        number=number,
        window_ms=WARM_WINDOW_MS,
        series=report.series,
        windows=report.windows,
        points=report.points,
        through_sequence=min(file.through_sequence for file in files),
    )


def rolled(before: Catalog, task: Roll, number: int, made: tuple[TierFile, ...]) -> Change:
    """What a roll's commit says. Raises: Overtaken."""
    if before.generation >= number:
        raise Overtaken(f"{task}: number {number} is taken")
    shadowed = tuple(
        file.path
        for file in before.of(task.tenant, "warm")
        if task.from_ms <= file.from_ms and file.until_ms <= task.until_ms
    )
    change = Change("roll", files=made, files_removed=shadowed)
    return change if task.again else moved(before, change, task)


def skipped(before: Catalog, task: Skip) -> Change:
    return moved(before, Change("skip"), task)


def moved(before: Catalog, change: Change, task: Roll | Skip) -> Change:
    """The change with the watermark at the task's end. Raises: Overtaken."""
    tenant, marks = task.tenant, before.rolled(task.tenant)
    if marks.warm not in (0, task.from_ms):
        raise Overtaken(f"{task}: rolled until {marks.warm}")
    first = marks.warm == 0
    cold = task.from_ms if first else marks.cold
    kept = {tenant: Marks(task.from_ms, task.from_ms)} if first else {}
    return Change(
        change.reason,
        files=change.files,
        files_removed=change.files_removed,
        rolled_until_ms={tenant: Marks(task.until_ms, cold)},
        kept_from_ms=kept,
    )


def expired(before: Catalog, task: Expire) -> Change:
    kept = before.kept_from(task.tenant)
    warm, cold = kept.warm, kept.cold
    marks = (
        Marks(task.kept_from_ms, cold) if task.tier == "warm" else Marks(warm, task.kept_from_ms)
    )
    return Change("expire", files_removed=task.paths, kept_from_ms={task.tenant: marks})
