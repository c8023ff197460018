"""Brings each manifest of a shard, and each catalog of its tiers, to the object store, as long as
the shard is this process's.

Invariant: a checkpoint is created when all that it names is there and was read back; a number that
somebody else has created ends this process's right to the shard, for good.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import Corruption, SluicewayError
from sluiceway.objects.interface import ObjectExists, ObjectStore
from sluiceway.services.backup.index import FILES_PREFIX, File
from sluiceway.services.backup.inventory import Changed, Item, hot_items
from sluiceway.services.backup.take import Target, matches, store_file
from sluiceway.services.offsite.catalogs import catalog_of, chain_items
from sluiceway.services.offsite.cut import Cut
from sluiceway.services.offsite.document import (
    FORMAT_VERSION,
    Checkpoint,
    Fenced,
    TermFile,
    name_of,
    numbers,
    read,
    snapshot_of,
    term_of,
)
from sluiceway.tiers import two_copies
from sluiceway.tiers.catalog import Catalog, names_of
from sluiceway.tiers.manifest import Version

KEEP = 3
"""Checkpoints that are kept, with what they name."""
PRUNE_EVERY = 16
LOOK_S = 0.5
CHECK_S = 5.0
"""Between looks whether the shard is still ours, while there is nothing to bring: what is acked
after a takeover is in this machine's journal alone."""
RETRY_S = 5.0
log = structlog.get_logger()


class Offsite:
    """One shard's follower. `push` and `prune` are one thread's."""

    def __init__(
        self,
        store: ObjectStore,
        data_dir: Path,
        last: Checkpoint,
        clock: Clock,
    ) -> None:
        """`last`: the newest checkpoint, which is this directory's (takeover.py)."""
        self._data_dir = data_dir
        self._store = store
        self._last = last
        self._clock = clock
        held = {facts.name: facts.bytes for facts in store.list(FILES_PREFIX)}
        known: dict[tuple[str, int, int], File] = {
            (file.path, file.bytes, file.mark): file for file in last.files
        }
        self._target = Target(store, None, held, known, file_of=self._file_of(last.term))
        self._kept: Callable[[], Collection[str]] = tuple
        self._secured: Catalog | None = None
        self._chain: dict[int, Item] = {}
        self._named: dict[int, frozenset[str]] = {}
        """By checkpoint: the objects of windows that its catalog names."""
        self._checked_s = clock.monotonic_s()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: str | None = None
        self.bytes_stored = 0

    @staticmethod
    def _file_of(term: int) -> Callable[[str, int, int, int], TermFile]:
        return partial(TermFile, term=term)

    @property
    def last(self) -> Checkpoint:
        """The newest checkpoint that this process knows to be there."""
        return self._last

    def secured(self) -> Catalog:
        """The catalog of the newest checkpoint that this process made: whoever takes the shard
        over has at least that."""
        return self._secured or Catalog()

    def has_catalog(self) -> bool:
        """Has the newest checkpoint one? Then each later one has."""
        return self._last.catalog is not None

    def has_object(self, name: str) -> bool:
        """Was it on the store when this process began, and not removed by it since?"""
        return name in self._target.held

    def push(self, version: Version, catalog: Catalog | None = None) -> bool:
        """Make a cut (cut.py) a checkpoint; false where it is one already. Blocks for the store.
        Without a catalog, a successor rolls all raw points anew.

        Raises: Changed (files of it went meanwhile: take a newer version), Fenced, Corruption,
        BackendUnavailable, OSError.
        """
        offsite = 0 if self._last.manifest is None else self._last.manifest.number
        if offsite > version.number:
            raise Corruption(f"manifest {version.number} is behind the checkpoint's {offsite}")
        if offsite == version.number and catalog is self._secured:
            return False
        if catalog is None and self._last.catalog is not None:
            raise Corruption(f"checkpoint {self._last.number} has a catalog, this directory none")
        items = [*hot_items(self._data_dir, version)]
        if catalog is not None:
            self._chain = chain_items(self._data_dir, catalog.number, self._chain)
            items += self._chain.values()
        files = tuple(self._stored(items))
        now_ms = self._clock.now_ms()
        checkpoint = Checkpoint(
            FORMAT_VERSION,
            self._last.number + 1,
            self._last.term,
            self._last.owner,
            now_ms,
            snapshot_of(version, now_ms),
            files,
            None if catalog is None else catalog.number,
        )
        try:
            self._create(checkpoint)
        except ObjectExists:
            self._last = self._found(checkpoint.number)
            return self.push(version, catalog)  # an earlier try of ours, perhaps of another cut
        self._last, self._secured = checkpoint, catalog
        self._named[checkpoint.number] = frozenset(names_of(catalog or Catalog()))
        if checkpoint.number % PRUNE_EVERY == 0:
            self.prune()
        return True

    def check(self) -> None:
        """Is the shard still ours? Raises: Fenced, Corruption, BackendUnavailable."""
        self._checked_s = self._clock.monotonic_s()
        number = max(numbers(self._store), default=0)
        if number > self._last.number:
            self._found(number)  # ours, where a try succeeded unseen

    def _check_if_due(self) -> None:
        if self._clock.monotonic_s() - self._checked_s >= CHECK_S:
            self.check()

    def bring(self, cut: Callable[[], Cut]) -> None:
        """One round: bring what is new, and look whether the shard is ours where nothing was
        brought, also for want of a cut. Raises: as `cut` and `push`."""
        brought = False
        try:
            found = cut()
            brought = self.push(found.version, found.catalog)
        except Fenced:
            raise
        except (SluicewayError, OSError, Changed):
            self._check_if_due()
            raise
        if not brought:
            self._check_if_due()

    def _check_newest(self, number: int) -> None:
        """Checkpoint `number` is ours and there. A number that was free proves nothing: others may
        have gone far ahead and removed theirs with their age; the newest one never goes."""
        newest_number = max(numbers(self._store), default=0)
        if newest_number > number:
            words = f"checkpoint {newest_number} is there, ours is {number}"
            raise Fenced(f"{words}: the shard was taken over")

    def _create(self, checkpoint: Checkpoint) -> None:
        """Raises: ObjectExists, Fenced."""
        data = two_copies.encode(checkpoint)
        self._store.create(name_of(checkpoint.number), data)
        self._check_newest(checkpoint.number)
        if not matches(self._store, name_of(checkpoint.number), data):
            raise Corruption(
                f"checkpoint {checkpoint.number}: what was stored reads back otherwise"
            )

    def _found(self, number: int) -> Checkpoint:
        """What has our number: an earlier try of ours, or another's. Raises: Fenced."""
        held = read(self._store, number)
        if (held.owner, held.term) == (self._last.owner, self._last.term):
            return held
        words = f"checkpoint {number} is of {held.owner} in term {held.term}"
        raise Fenced(f"{words}: the shard was taken over")

    def _stored(self, items: Iterable[Item]) -> list[TermFile]:
        """The files of a cut, all of them there."""
        files: list[TermFile] = []
        for item in items:
            known = self._target.known.get((item.path, item.bytes, item.mark))
            if known is None or not self._target.has(known):
                known, stored = store_file(self._target, item)
                self._target.known[(known.path, known.bytes, known.mark)] = known
                self._target.held.update(known.pieces())
                self.bytes_stored += stored or 0
            assert isinstance(known, TermFile)
            files.append(known)
        return files

    def prune(self) -> None:
        """Remove what no kept checkpoint names, and nothing that a later term stored: should
        somebody take the shard meanwhile, what they name is named by ours or is of their term.
        Raises: Corruption, BackendUnavailable."""
        kept = numbers(self._store)[-KEEP:]
        self._named = {number: self._names(number) for number in kept}
        held = [facts.name for facts in self._store.list(FILES_PREFIX)]
        held = [name for name in held if (term_of(name) or 1 << 62) <= self._last.term]
        # What is being brought, or is named by a catalog that no checkpoint has yet, stays too.
        named = set(self._kept()).union(*self._named.values())
        for number in kept:
            named.update(n for file in read(self._store, number).files for n, _ in file.pieces())
        if not kept or kept[-1] != self._last.number:
            return  # somebody is ahead of us: it is theirs to prune
        for number in numbers(self._store):
            if number < kept[0]:
                self._store.delete(name_of(number))
        for name in held:
            if name not in named:
                self._store.delete(name)
                self._target.held.pop(name, None)
        known = self._target.known  # each manifest of a catalog is a file of its own
        for gone in [key for key, file in known.items() if not self._target.has(file)]:
            del known[gone]

    def _names(self, number: int) -> frozenset[str]:
        """The objects of windows that a checkpoint's catalog names."""
        known = self._named.get(number)
        if known is None:
            found = catalog_of(self._store, read(self._store, number))
            known = frozenset(names_of(found or Catalog()))
        return known

    # --- the thread -----------------------------------------------------------------------------

    def start(
        self,
        cut: Callable[[], Cut],
        on_fenced: Callable[[Exception], None],
        kept: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Follow `cut` until told to stop; `on_fenced` is called, once, when it is over. `kept`
        says which objects stay though no checkpoint names them."""
        self._kept = kept

        def run() -> None:
            pause_s = 0.0
            while not self._stopping.wait(pause_s):
                pause_s = LOOK_S
                try:
                    self.bring(cut)
                    self.failure = None
                except Fenced as error:
                    self.failure = str(error)
                    log.error("shard_fenced", error=str(error))
                    on_fenced(error)
                    return
                except Changed:
                    continue
                except (SluicewayError, OSError) as error:
                    if self.failure is None:
                        log.warning("offsite_waits", error=str(error))
                    self.failure, pause_s = str(error), RETRY_S

        self._thread = threading.Thread(target=run, name="sluiceway-offsite", daemon=True)
        self._thread.start()

    def stop(self, cut: Callable[[], Cut], timeout_s: float) -> bool:
        """End the thread; then bring the last cut, if nothing is in the way. Is it there?"""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        try:
            last = cut()
            self.push(last.version, last.catalog)
        except (SluicewayError, OSError) as error:
            log.warning("offsite_last_not_stored", error=str(error))
            return False
        return True

    def behind(self, version: Version) -> int:
        """Manifests that are not offsite yet."""
        manifest = self._last.manifest
        return version.number - (0 if manifest is None else manifest.number)
