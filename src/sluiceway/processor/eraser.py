"""Orders to delete on their way from the manifest to the blocks.

Invariant: an order is durable before a point goes, and done only when no block before its end holds
a point that it takes, no file of letters a letter, and no file of another tier a window. What is
done is in the manifest, block by block: a restart goes on where the last one stood.
"""

from collections.abc import Callable

import msgspec

from sluiceway.clock import Clock
from sluiceway.deadletters.purge import without_tenant
from sluiceway.errors import Corruption, Overloaded
from sluiceway.kernels import Disk, Shard
from sluiceway.processor.checkpoint import Checkpointer
from sluiceway.tiers.manifest import BlockEntry, Deletion, ManifestStore, Matcher, Version

DELETIONS_MAX = 1_000
"""Orders in the manifest; the oldest that are done make room."""
PENDING_MAX = 64


Erased = Callable[[Deletion], int | None]
"""How many windows an order took of the other tiers; None while they still hold some."""


class Eraser:
    """Takes orders on any thread; `step` is the merger's."""

    def __init__(
        self,
        disk: Disk,
        shard: Shard,
        manifests: ManifestStore,
        checkpointer: Checkpointer,
        clock: Clock,
    ) -> None:
        self._disk = disk
        self._shard = shard
        self._manifests = manifests
        self._checkpointer = checkpointer
        self._clock = clock
        self._looked_at: set[str] = set()
        """Blocks that hold nothing of the orders numbered up to `_known`."""
        self._known = 0
        self._damaged: set[str] = set()
        self._erased: Erased = lambda _: 0

    def finish_by(self, erased: Erased) -> None:
        """Orders are done when `erased` says so too. It never blocks."""
        self._erased = erased

    def order(
        self,
        tenant: str,
        matchers: tuple[Matcher, ...],
        before_ms: int | None,
        actor: str,
        whole: bool = False,
        raw_only: bool = False,
    ) -> Deletion:
        """An order for all that is sealed; durable, and hidden from queries, when it returns.

        Raises: Overloaded (too many are pending), OSError, BackendUnavailable.
        """
        made: list[Deletion] = []

        def with_order(before: Version) -> tuple[Deletion, ...]:
            if len(before.pending()) >= PENDING_MAX:
                raise Overloaded(10.0, f"{PENDING_MAX} deletions are pending already")
            number = 1 + max((held.number for held in before.deletions), default=0)
            order = Deletion(
                number,
                tenant,
                whole,
                matchers,
                before_ms,
                before.next_sequence,
                self._clock.now_ms(),
                actor,
                raw_only=raw_only,
            )
            made.append(order)
            return (*kept(before.deletions), order)

        self._checkpointer.order(with_order)
        return made[-1]

    def step(self) -> bool:
        """One block or file written anew, or orders noted as done; false where nothing is left to
        do. Raises: as a merge does; a damaged block keeps its orders pending and hidden."""
        version = self._manifests.version
        pending = version.pending()
        if not pending:
            return False
        newest = max(order.number for order in pending)
        if newest != self._known:
            self._known, self._looked_at = newest, set()
        selected, touched = self._shard.erasing()
        blocks = {block.path: block for block in version.blocks}
        for path in touched:
            if path in blocks and path not in self._looked_at | self._damaged:
                self._erase(blocks[path])
                return True
        if self._purge(version, pending):
            return True
        if any(path in self._damaged for path in touched):
            return False
        return self._finish(dict(selected), pending)

    def _erase(self, block: BlockEntry) -> None:
        try:
            erased = self._checkpointer.erase(block)
        except Corruption:
            self._damaged.add(block.path)
            raise
        if not erased:
            self._looked_at.add(block.path)

    def _purge(self, version: Version, pending: tuple[Deletion, ...]) -> bool:
        """Dead letters of a tenant that goes, one file."""
        for order in pending:
            if not order.whole:
                continue
            for file in version.letters:
                if file.first_sequence >= order.end_sequence or file.path in self._damaged:
                    continue
                try:
                    rest = without_tenant(self._disk.read(file.path), order.tenant)
                except Corruption:
                    self._damaged.add(file.path)
                    raise
                if rest is not None:
                    self._checkpointer.purge(file, rest, order.number)
                    return True
        return False

    def _finish(self, selected: dict[int, int], pending: tuple[Deletion, ...]) -> bool:
        """Note orders as done; false where none is."""
        now_ms = self._clock.now_ms()
        told = [(o.number, self._erased(o)) for o in pending if o.number in selected]
        windows = {number: count for number, count in told if count is not None}
        if not windows:
            return False

        def done(before: Version) -> tuple[Deletion, ...]:
            orders = (
                msgspec.structs.replace(
                    order,
                    series=selected[order.number],
                    windows=windows[order.number],
                    done_ms=now_ms,
                )
                if order.done_ms is None and order.number in windows
                else order
                for order in before.deletions
            )
            return without_retention(tuple(orders))

        self._checkpointer.order(done)
        return True


def without_retention(orders: tuple[Deletion, ...]) -> tuple[Deletion, ...]:
    """Without what retention ordered and is done: nobody asks for its proof. The newest order stays
    whatever it is, so that no number is given twice."""
    newest = max((order.number for order in orders), default=0)
    return tuple(o for o in orders if not o.raw_only or o.done_ms is None or o.number == newest)


def kept(orders: tuple[Deletion, ...]) -> tuple[Deletion, ...]:
    """Room for one more."""
    over = max(0, len(orders) + 1 - DELETIONS_MAX)
    old = [order.number for order in orders if order.done_ms is not None][:over]
    return tuple(order for order in orders if order.number not in old)


def mergeable(version: Version) -> tuple[BlockEntry, ...]:
    """Blocks that may be merged: while orders are pending no block may hold points from both sides
    of an end, so only those behind all ends."""
    end = max((order.end_sequence for order in version.pending()), default=0)
    return tuple(block for block in version.blocks if block.first_sequence >= end)
