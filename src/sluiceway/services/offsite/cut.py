"""The hot tier and the catalog of the tiers as both were at one moment.

Invariant: a cut is what a process that was killed then would have left: the catalog knows of every
raw block that the hot tier let go and of every hour whose mark it forgot; the hot tier knows of
every order to delete that files of windows followed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable
from sluiceway.tiers.catalog import Catalog
from sluiceway.tiers.manifest import Version

SETTLE_S_MIN = 10.0
"""Between two seals that are made for a cut's sake."""


@dataclass(frozen=True, slots=True)
class Cut:
    version: Version
    catalog: Catalog | None
    """None: not every file that it names is on the store yet."""

    def sees_ahead(self) -> bool:
        """Has a file of windows seen records that no block holds yet? Whoever reads the records
        again has their points; with a journal that went with its machine, nobody would."""
        if self.catalog is None:
            return False
        next_sequence = self.version.next_sequence
        return any(file.through_sequence > next_sequence for file in self.catalog.files)


def take_cut(
    version: Callable[[], Version],
    catalog: Callable[[], Catalog],
    is_placed: Callable[[Catalog], bool],
) -> Cut:
    """`catalog` returns the same object until it changes."""
    while True:
        held = catalog()
        found = version()
        if catalog() is held:
            return Cut(found, held if is_placed(held) else None)


class SealedCuts:
    """Cuts of a shard whose journal goes with its machine: none sees ahead of its blocks."""

    def __init__(self, take: Callable[[], Cut], settle: Callable[[], Cut], clock: Clock) -> None:
        """`settle` seals all that files of windows have seen, while none is made."""
        self._take = take
        self._settle = settle
        self._clock = clock
        self._last: Cut | None = None
        self._settled_s = -SETTLE_S_MIN

    def __call__(self) -> Cut:
        """Blocks for a seal. Raises: BackendUnavailable, what `settle` raises."""
        found = self._take()
        if found.sees_ahead():
            now_s = self._clock.monotonic_s()
            if self._last is not None and now_s - self._settled_s < SETTLE_S_MIN:
                return self._last
            self._settled_s = now_s
            found = self._settle()
        if found.sees_ahead():
            raise BackendUnavailable("windows have seen records that are not sealed yet")
        self._last = found
        return found
