"""Files of windows written anew without what orders to delete series take.

Invariant: a file is replaced by one of the same hours and the same number, so that who owns an hour
does not change; what it was made without stands in the catalog, and how much that was.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import msgspec

from sluiceway.clock import Clock
from sluiceway.kernels import Disk, count_taken
from sluiceway.rollup.changes import Overtaken
from sluiceway.rollup.interface import ColdEraser, Merger
from sluiceway.rollup.merging import taken_by
from sluiceway.rollup.schedule import made_before
from sluiceway.rollup.tasks import Erase
from sluiceway.tiers.catalog import Catalog, Change, Erased, Owned, TierFile
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.tiers.manifest import Deletion

LOOKED_AT_MAX = 256
"""Units that are told as free of what was ordered in one commit."""
WARM_SUFFIX = ".swm"


@dataclass(frozen=True)
class Erasing:
    """What it takes. `orders`: those there are, done or not."""

    disk: Disk
    clock: Clock
    orders: Callable[[], Sequence[Deletion]]
    merge: Merger
    erase_cold: ColdEraser
    bring: Callable[[Sequence[TierFile]], None]

    def erase(self, task: Erase, store: CatalogStore, fresh: Callable[[str], str]) -> None:
        """One step: the first unit that holds something anew, and with it those before it that
        hold nothing. `fresh`: a path, free. Raises: Corruption, OSError, BackendUnavailable."""
        orders = [o for o in self.orders() if o.tenant == task.tenant and not o.whole]
        change = Change("delete")
        looked = 0
        for files, due in units(store.catalog, task.tenant, orders):
            self.bring(files)
            kept = tuple(msgspec.structs.replace(f, orders=due[-1].number) for f in files)
            if not self._touched(files, due):
                change = replace(change, files=(*change.files, *kept))
                looked += 1
                if looked < LOOKED_AT_MAX:
                    continue
                break
            made = self._written_anew(files, due, fresh)
            proof = self._proof(task, files, made)
            gone = tuple(file.path for file in files)
            files_made = (*change.files, *made)
            change = replace(change, files=files_made, files_removed=gone, erased=(proof,))
            break
        if change.files or change.files_removed:
            store.commit(lambda now: still(now, change))

    def _touched(self, files: Sequence[TierFile], orders: Sequence[Deletion]) -> bool:
        """Does any of the files hold series that the orders name, of their times?"""
        first_ms = files[0].from_ms
        due = [order for order in orders if order.before_ms is None or order.before_ms > first_ms]
        taken = msgspec.json.encode(taken_by(due)).decode()
        return bool(due) and any(
            count_taken(self.disk, file.path, file.tier, taken) for file in files
        )

    def _written_anew(
        self, files: Sequence[TierFile], orders: Sequence[Deletion], fresh: Callable[[str], str]
    ) -> tuple[TierFile, ...]:
        if files[0].tier == "cold":
            return self.erase_cold(files, orders)
        (file,) = files
        path = fresh(erased_path(file.path, orders[-1].number))
        whole = Owned(file, ((file.from_ms, file.until_ms),))
        report = self.merge(file.tenant, [whole], path, file.window_ms, orders)
        made = msgspec.structs.replace(
            file,
            path=path,
            bytes=report.bytes,
            crc32=report.crc32,
            series=report.series,
            windows=report.windows,
            points=report.points,
            sketches=report.sketches,
            orders=orders[-1].number,
            remote=False,
            object="",
        )
        return (made,)

    def _proof(self, task: Erase, files: Sequence[TierFile], made: Sequence[TierFile]) -> Erased:
        windows = sum(f.windows for f in files) - sum(f.windows for f in made)
        points = sum(f.points for f in files) - sum(f.points for f in made)
        now_ms = self.clock.now_ms()
        return Erased(task.newest, task.tenant, len(files), windows, points, now_ms)


def units(
    catalog: Catalog, tenant: str, orders: Sequence[Deletion]
) -> Iterator[tuple[list[TierFile], list[Deletion]]]:
    """Files that were written together and that orders may still take from, with those orders,
    ascending."""
    by_number = sorted(orders, key=lambda order: order.number)
    held = sorted(catalog.of(tenant), key=lambda file: file.unit)
    for _, group in groupby(held, key=lambda file: file.unit):
        files = list(group)
        due = [order for order in by_number if any(made_before(f, order) for f in files)]
        if due:
            yield files, due


def still(now: Catalog, change: Change) -> Change:
    """The change, if the files that it was made for are all there. Raises: Overtaken."""
    held = {file.path for file in now.files}
    if not held.issuperset(change.files_removed):
        raise Overtaken("files that orders take from: they were changed meanwhile")
    return change


def erased_path(path: str, order: int) -> str:
    """Of the file that takes the place of a warm one."""
    directory, _, name = path.rpartition("/")
    stem = name.removesuffix(WARM_SUFFIX).partition("-e")[0]
    return f"{directory}/{stem}-e{order:06d}{WARM_SUFFIX}"
