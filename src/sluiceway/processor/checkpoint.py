"""Checkpoints: what is written, committed, shown, and only then forgotten.

Invariant: write files -> commit ONE manifest -> publish to readers -> truncate the journal ->
unlink. Nothing that the last durable manifest needs is ever touched; a failure at any step leaves
a state from which the next try, or a restart, goes on.
"""

import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from sluiceway.deadletters.purge import Purged
from sluiceway.errors import SluicewayError
from sluiceway.kernels import Disk, mutant_on
from sluiceway.tiers.hot import MergeTask, add_days
from sluiceway.tiers.interface import BlockMeta, MergeReport, SealReport, TierKernel
from sluiceway.tiers.manifest import (
    BlockEntry,
    Change,
    Deletion,
    HoursEntry,
    LettersEntry,
    ManifestStore,
    Policy,
    Replay,
    StateEntry,
    TableEntry,
    Version,
)


class Checkpointer:
    """Seals, merges and expiry of one shard. Thread-safe; a seal may overlap a merge, but two
    merges may not overlap each other."""

    def __init__(
        self, disk: Disk, kernel: TierKernel, manifests: ManifestStore, directory: str
    ) -> None:
        self._disk = disk
        self._kernel = kernel
        self._manifests = manifests
        self._directory = directory
        self._names = threading.Lock()
        self._names_given = 0
        # A commit and its publication are one step: readers follow the order of manifests.
        self._committing = threading.Lock()
        self._unpublished: list[Publication] = []
        self._garbage: list[str] = []
        self.seals = 0
        self.merges = 0

    def seal(self) -> None:
        """Make the frozen buffer part of the tier. Raises: BackendUnavailable, OSError; `seal`
        must then be called again."""
        if self._publish():
            return  # The last try committed it and failed to show it.
        if mutant_on("offset_before_seal"):
            self._commit(Change("seal", next_sequence=1 << 40))
            self._kernel.truncate_journal(1 << 40)
        paths = {
            "block": self._name("blocks", "block"),
            "letters": self._name("letters", "letters"),
            "hours": self._name("hours", "hours"),
            "state": self._name("state", "state"),
        }
        try:
            named = msgspec.json.encode(paths).decode()
            text = self._kernel.write_seal(named, self._manifests.version.fence)
        except SluicewayError:
            self._unlink(list(paths.values()))  # The next try has other names.
            raise
        report = msgspec.json.decode(text, type=SealReport)
        self._commit(seal_change(report, self._manifests.version), sealed=True)
        self.seals += 1

    def truncate(self) -> None:
        """Forget the records that the last manifest covers. Raises: BackendUnavailable; the next
        call makes up for it."""
        self._kernel.truncate_journal(self._manifests.version.next_sequence)

    def merge(self, task: MergeTask) -> None:
        """Write the merger of `task`, then put it in the inputs' place.

        Raises: BackendUnavailable, OSError, Corruption, Cancelled; plan again then.
        """
        self._publish()
        request = {
            "inputs": [block.path for block in task.inputs],
            "cuts_ms": task.cuts_ms,
            "paths": [self._name("blocks", "block") for _ in range(len(task.cuts_ms) + 1)],
            "codec": task.codec,
        }
        text = self._kernel.merge(msgspec.json.encode(request).decode())
        report = msgspec.json.decode(text, type=MergeReport)
        change = Change(
            reason="merge",
            blocks=tuple(merged_block(task, meta) for meta in report.outputs),
            blocks_removed=tuple(block.path for block in task.inputs),
            superseded=report.superseded,
        )
        self._commit(change)
        self.merges += 1

    def expire(self, blocks: Iterable[BlockEntry]) -> None:
        """Forget whole blocks whose points are past their retention."""
        gone = tuple(blocks)
        if gone:
            rows = sum(block.rows for block in gone)
            paths = tuple(block.path for block in gone)
            self._commit(Change("retention", blocks_removed=paths, expired=rows))

    def expire_letters(self, files: Iterable[LettersEntry]) -> None:
        """Forget whole files of dead letters that are past their retention."""
        gone = tuple(file.path for file in files)
        if gone:
            self._commit(Change("retention", letters_removed=gone))

    def expire_hours(self, files: Iterable[HoursEntry]) -> None:
        """Forget whole files of recorded hours."""
        gone = tuple(file.path for file in files)
        if gone:
            self._commit(Change("retention", hours_removed=gone))

    def note_replays(self, replays: tuple[Replay, ...], points: int) -> None:
        """Commit how far replays have come; `points` left the dead letters since the last time.

        Raises: OSError; then it may or may not survive a crash, and is to be said again.
        """
        self._commit(Change("replay", replays=replays, replayed=points))

    def order(self, make: Callable[[Version], tuple[Deletion, ...]]) -> None:
        """Commit orders to delete; `make` sees the version before, to which nothing is added until
        the orders are in. Raises: OSError; then they may or may not survive a crash."""
        self._commit(lambda before: Change("delete", deletions=make(before)))

    def erase(self, block: BlockEntry) -> bool:
        """Write a block anew without the points that pending orders take; false where it holds
        none of them. Raises: BackendUnavailable, OSError, Corruption, Cancelled."""
        self._publish()
        task, path = MergeTask((block,), (), block.codec), self._name("blocks", "block")
        request = {"inputs": [block.path], "cuts_ms": [], "paths": [path], "codec": block.codec}
        text = self._kernel.merge(msgspec.json.encode({**request, "erase": True}).decode())
        report = msgspec.json.decode(text, type=MergeReport)
        if not report.deleted:
            self._unlink([path])
            return False

        def change(before: Version) -> Change:
            orders = {order.number: order for order in before.deletions}
            gone, expired = Counter[str](), 0
            for number, points in report.deleted.items():
                order = orders[number]
                orders[number] = msgspec.structs.replace(order, points=order.points + points)
                if order.raw_only:
                    expired += points
                else:
                    gone[order.tenant] += points
            return Change(
                "delete",
                blocks=tuple(merged_block(task, meta) for meta in report.outputs),
                blocks_removed=(block.path,),
                superseded=report.superseded,
                expired=expired,
                deletions=tuple(orders.values()),
                deleted=dict(gone),
            )

        self._commit(change)
        return True

    def purge(self, file: LettersEntry, rest: Purged, order: int | None = None) -> None:
        """Put the rest of a file of dead letters in its place, by an order to delete or since they
        are too old. Raises: OSError."""
        made: tuple[LettersEntry, ...] = ()
        if rest.letters:
            path = self._name("letters", "letters")
            self._disk.write_new(path, rest.data)
            changed = msgspec.structs.replace(
                file,
                path=path,
                bytes=len(rest.data),
                crc32=zlib.crc32(rest.data),
                letters=rest.letters,
                points=rest.points,
                first_received_ms=rest.first_received_ms,
                last_received_ms=rest.last_received_ms,
            )
            made = (changed,)

        def purged(held: Deletion) -> Deletion:
            points = held.letter_points + rest.points_gone
            return msgspec.structs.replace(held, letter_points=points)

        def change(before: Version) -> Change:
            orders = tuple(purged(o) if o.number == order else o for o in before.deletions)
            gone = (file.path,)
            if order is None:
                return Change("retention", letters=made, letters_removed=gone)
            return Change("delete", letters=made, letters_removed=gone, deletions=orders)

        self._commit(change)

    def change_policies(self, policies: tuple[Policy, ...], version: int, table: bytes) -> None:
        """Commit policies that name a new compiled one: durable before any record names it.

        Raises: OSError; then it may or may not survive a crash, and must not be used.
        """
        path = self._name("policies", "json", f"{version:010d}-")
        self._disk.write_new(path, table)
        named = {policy.table for policy in policies}
        entry = TableEntry(version, path, len(table), zlib.crc32(table))
        tables = self._manifests.version.tables
        gone = tuple(table.path for table in tables if table.version not in named)
        self._commit(Change("policy", policies=policies, tables=(entry,), tables_removed=gone))

    def schedule(self, schedule: tuple[tuple[int, int], ...]) -> None:
        """Commit from which record on which policy judges: durable before a record is judged so.
        Entries that no later record needs are left out. Raises: OSError."""

        def change(before: Version) -> Change:
            begun = [at for at, (first, _) in enumerate(schedule) if first <= before.next_sequence]
            return Change("policy", schedule=schedule[max(begun, default=0) :])

        self._commit(change)

    def _commit(self, change: Change | Callable[[Version], Change], sealed: bool = False) -> None:
        with self._committing:
            if not isinstance(change, Change):
                change = change(self._manifests.version)
            made, gone = change.made(), change.gone()
            if mutant_on("unlink_before_manifest"):
                self._unlink(gone)
            try:
                version = self._manifests.commit(change)
            except OSError:
                # Perhaps it is durable all the same: keep its files until a later commit is.
                self._garbage += made
                raise
            text = encode_publication(version, change, sealed)
            self._unpublished.append(Publication(text, sealed, gone + self._garbage))
            self._garbage = []
        self._publish()

    def _publish(self) -> bool:
        """Show readers what is committed, then unlink what it forgets; was a seal among it?"""
        sealed = False
        with self._committing:
            while self._unpublished:
                first = self._unpublished[0]
                self._kernel.publish(first.text)
                self._unpublished.pop(0)
                self._unlink(first.gone)
                sealed = sealed or first.sealed
        return sealed

    def _unlink(self, paths: list[str]) -> None:
        """Remove files that no manifest names any more; what fails is removed at the next open."""
        for path in paths:
            try:
                self._disk.remove(path)
            except OSError:
                continue

    def _name(self, folder: str, extension: str, prefix: str = "") -> str:
        with self._names:
            self._names_given += 1
            fence = self._manifests.version.fence
            name = f"{prefix}{fence:06d}-{self._names_given:06d}.{extension}"
            return f"{self._directory}/{folder}/{name}"


@dataclass(frozen=True, slots=True)
class Publication:
    """A committed change on its way to readers."""

    text: str
    sealed: bool
    gone: list[str]


def seal_change(report: SealReport, before: Version) -> Change:
    """What a seal's manifest says on top of `before`: a pure function."""
    state = report.state
    older = before.states if report.snapshot else ()
    return Change(
        reason="seal",
        blocks=sealed_blocks(report),
        states=(
            StateEntry(
                state.path, state.bytes, state.crc32, report.next_sequence, report.policy_version
            ),
        ),
        states_removed=tuple(entry.path for entry in older),
        next_sequence=report.next_sequence,
        superseded=report.superseded,
        letters=sealed_letters(report),
        hours=sealed_hours(report),
    )


def sealed_letters(report: SealReport) -> tuple[LettersEntry, ...]:
    if report.letters is None:
        return ()
    meta = msgspec.structs.asdict(report.letters)
    return (
        LettersEntry(
            **meta,
            first_sequence=report.first_sequence,
            last_sequence=report.next_sequence - 1,
        ),
    )


def sealed_hours(report: SealReport) -> tuple[HoursEntry, ...]:
    if report.hours is None:
        return ()
    meta = msgspec.structs.asdict(report.hours)
    return (
        HoursEntry(
            **meta,
            first_sequence=report.first_sequence,
            last_sequence=report.next_sequence - 1,
        ),
    )


def sealed_blocks(report: SealReport) -> tuple[BlockEntry, ...]:
    if report.block is None:
        return ()
    last = report.next_sequence - 1
    return (block_entry(report.block, report.first_sequence, last, "fast", report.days),)


def merged_block(task: MergeTask, meta: BlockMeta) -> BlockEntry:
    """An output stands for all records of its inputs: it takes the place of the newest."""
    first = min(block.first_sequence for block in task.inputs)
    last = max(block.last_sequence for block in task.inputs)
    days = add_days(task.inputs, meta.min_ms, meta.max_ms)
    return block_entry(meta, first, last, task.codec, days)


def block_entry(
    meta: BlockMeta,
    first_sequence: int,
    last_sequence: int,
    codec: str,
    days: list[tuple[int, int]],
) -> BlockEntry:
    return BlockEntry(
        **msgspec.structs.asdict(meta),
        first_sequence=first_sequence,
        last_sequence=last_sequence,
        codec=codec,
        days=days,
    )


def encode_publication(version: Version, change: Change, sealed: bool) -> str:
    """What `change`, now committed as `version`, alters for readers."""
    value = {
        "blocks": [
            {
                "path": block.path,
                "crc32": block.crc32,
                "first_sequence": block.first_sequence,
                "last_sequence": block.last_sequence,
            }
            for block in change.blocks
        ],
        "blocks_removed": change.blocks_removed,
        "sealed": sealed,
        "movements": version.movements,
        "deletions": version.deletions,
        "deleted": version.deleted,
        "hours": [
            {"path": file.path, "bytes": file.bytes, "crc32": file.crc32} for file in version.hours
        ],
    }
    return msgspec.json.encode(value).decode()
