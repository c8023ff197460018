"""Dead letters that are older than their tenant's limit says leave the files of others.

Invariant: a letter goes when the newest one of its chunk is past its tenant's age, never before;
what is left of a file is as it was, byte for byte. Works out what to do; others commit it.
"""

from collections.abc import Iterable, Iterator, Mapping

from sluiceway.deadletters.purge import Purged, newest_by_tenant, without
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.tiers.manifest import LettersEntry

FILES_A_LOOK_MAX = 16


class Aging:
    """Of one shard's files. Used by one thread at a time."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._oldest: dict[str, dict[str, int]] = {}
        """By path and tenant: when the newest letter of its oldest chunk was received. A damaged
        file has none: it goes as a whole, by the policy's days."""

    def due(
        self, files: Iterable[LettersEntry], ages_ms: Mapping[str, int], now_ms: int
    ) -> Iterator[tuple[LettersEntry, Purged]]:
        """Files to put others in the place of, at most `FILES_A_LOOK_MAX`. Raises: OSError,
        BackendUnavailable."""
        held = list(files)
        paths = {file.path for file in held}
        self._oldest = {path: of for path, of in self._oldest.items() if path in paths}
        if not ages_ms:
            return
        earliest_ms = now_ms - min(ages_ms.values())
        young = [file for file in held if file.first_received_ms < earliest_ms]
        told = 0
        for file in young:
            if told == FILES_A_LOOK_MAX:
                return
            oldest = self._known(file)
            gone = {name: now_ms - age for name, age in ages_ms.items() if name in oldest}
            if any(oldest[name] < until_ms for name, until_ms in gone.items()):
                told += 1
                rest = without(
                    self._disk.read(file.path),
                    lambda tenant, newest_ms, gone=gone: newest_ms < gone.get(tenant, newest_ms),  # type: ignore[misc]
                )
                if rest is not None:
                    yield file, rest

    def _known(self, file: LettersEntry) -> dict[str, int]:
        if file.path not in self._oldest:
            try:
                self._oldest[file.path] = newest_by_tenant(self._disk.read(file.path))
            except Corruption:
                self._oldest[file.path] = {}
        return self._oldest[file.path]
