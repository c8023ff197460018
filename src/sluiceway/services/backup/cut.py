"""What backups that were cut off leave, and who removes it.

Invariant: an object is removed only where every index of the place can be read, none names it, and
the backup that removes is the one that the place's mark names; who finds another mark than its own
commits nothing.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.objects.interface import ObjectMissing, ObjectStore
from sluiceway.services.backup.identity import Identity, Random
from sluiceway.services.backup.index import FILES_PREFIX, numbers, read_index

MARK = "running"
MARK_BYTES = 8


class Attempt:
    """One backup into a place. `begin` before the first object, `check` before the index is
    created, `end` behind it."""

    def __init__(self, store: ObjectStore, random: Random) -> None:
        self._store = store
        self._mark = random(MARK_BYTES).hex().encode() + b"\n"
        self._former_was_cut = False

    def begin(self) -> None:
        """Raises: BackendUnavailable."""
        found = self._found()
        if found == self._mark:
            return
        self._former_was_cut = found is not None
        self._store.put(MARK, self._mark)

    def check(self) -> None:
        """Raises: BackendUnavailable."""
        if self._found() != self._mark:
            raise BackendUnavailable("another backup began in that place meanwhile: run it again")

    def end(self) -> int:
        """How many objects of a former one were removed. Raises: BackendUnavailable."""
        removed = 0
        if self._former_was_cut:
            named = names_of_all(self._store)
            if named is None:
                return 0  # The mark stays: who comes when the index is whole again removes them.
            for facts in list(self._store.list(FILES_PREFIX)):
                if facts.name not in named:
                    self._store.delete(facts.name)
                    removed += 1
            removed += self._store.sweep()
        self._store.delete(MARK)
        return removed

    def _found(self) -> bytes | None:
        try:
            return self._store.get(MARK)
        except ObjectMissing:
            return None


def names_of_all(store: ObjectStore) -> set[str] | None:
    """The objects that some backup names; None where an index cannot be read."""
    named: set[str] = set()
    for number in numbers(store):
        try:
            index = read_index(store, number)
        except (Corruption, ObjectMissing):
            return None
        named.update(name for file in index.files for name, _ in file.pieces())
    return named


def scratch_prefix(identity: Identity) -> str:
    """How the names of a directory's temporary copies begin."""
    return f"sluiceway-backup-{identity.directory}-"


def remove_scratch(identity: Identity) -> None:
    """Temporary copies of a backup that was killed: they hold hashes of keys."""
    for left in Path(tempfile.gettempdir()).glob(f"{scratch_prefix(identity)}*"):
        with contextlib.suppress(OSError):  # Another user's.
            shutil.rmtree(left)
