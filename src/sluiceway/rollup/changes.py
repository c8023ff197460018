"""What a task's commit says: files and marks, out of what was made and the catalog before.

Invariant: pure; a change that does not fit the catalog it is shown raises `Overtaken`.
"""

import msgspec

from sluiceway.errors import SluicewayError
from sluiceway.rollup.interface import RollReport, WindowsReport
from sluiceway.rollup.tasks import Compact, Drop, Expire, Roll, Skip
from sluiceway.tiers.catalog import Catalog, Change, Erased, Marks, TierFile
from sluiceway.tiers.paths import day_of_end_ms

WARM_WINDOW_MS = 60_000


class Overtaken(SluicewayError):
    """Somebody else changed the catalog meanwhile: plan again."""


def day_files(catalog: Catalog, tenant: str, day_ms: int) -> tuple[TierFile, ...]:
    held = catalog.of(tenant, "warm")
    return tuple(file for file in held if day_of_end_ms(file.until_ms) == day_ms)


def month_files(catalog: Catalog, task: Compact) -> tuple[TierFile, ...]:
    """The cold files of a month."""
    return tuple(
        file
        for file in catalog.of(task.tenant, "cold")
        if task.from_ms <= file.from_ms and file.until_ms <= task.until_ms
    )


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
        orders=report.orders,
        lost_points=report.lost_points,
        sketches=file.sketches,
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
        orders=min(file.orders for file in files),
        lost_points=sum(file.lost_points for file in files),
        folded=report.folded,
        sketches=report.sketches,
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


def kept_with_loss(before: Catalog, task: Roll, lost_points: int) -> Change:
    """The windows of before stay, and may lack so many points that came since."""
    touched = tuple(
        msgspec.structs.replace(file, lost_points=max(file.lost_points, lost_points))
        for file in before.of(task.tenant)
        if file.from_ms < task.until_ms and task.from_ms < file.until_ms
    )
    return Change("damage", files=touched)


def dropped(before: Catalog, task: Drop, now_ms: int) -> Change:
    """A tenant's files, with the proof."""
    files = [file for file in before.files if file.path in task.paths]
    windows, points = sum(f.windows for f in files), sum(f.points for f in files)
    proof = Erased(task.order, task.tenant, len(files), windows, points, now_ms)
    gone = (task.tenant,) if task.whole else ()
    return Change("delete", files_removed=task.paths, tenants_removed=gone, erased=(proof,))


def expired(before: Catalog, task: Expire) -> Change:
    kept = before.kept_from(task.tenant)
    warm, cold = kept.warm, kept.cold
    marks = (
        Marks(task.kept_from_ms, cold) if task.tier == "warm" else Marks(warm, task.kept_from_ms)
    )
    return Change("expire", files_removed=task.paths, kept_from_ms={task.tenant: marks})
