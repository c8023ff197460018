"""Files of windows on an object store: brought there once they are settled, and back when a task
needs one of them.

Invariant: the catalog calls a file remote only after the store has given back the bytes that were
written here; a local copy goes only after that. An object's name is the file's path.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from sluiceway.errors import BackendUnavailable, Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.objects.interface import ObjectExists, ObjectMissing, ObjectStore
from sluiceway.tiers.catalog import Catalog, TierFile


class ObjectsStatus(msgspec.Struct, frozen=True):
    """What a rollup says of its object store."""

    error: str
    """Why the last call failed; empty: it did not."""
    waiting_files: int
    """Settled files that are here and not on the store yet."""
    waiting_bytes: int
    stalled_s: float
    """For how long files have waited and none was sent; 0 where none waits."""
    sent_total: int


@dataclass(slots=True)
class RemoteTier:
    """One data directory's store. Used by the rollup's thread; `status` is read by any."""

    store: ObjectStore
    disk: Disk
    local_bytes_max: int
    """Of local copies of files that are on the store."""
    failing: str = ""
    """Why the last call failed; empty: it did not."""
    _waiting: tuple[int, int] = (0, 0)
    """Files and bytes."""
    _sent: int = 0
    _moved: tuple[int, float] = (-1, 0.0)
    """How many were sent, and when (monotonic) that grew or nothing waited."""
    _local: dict[str, int] = field(default_factory=dict)
    """Local copies that we know of, and their bytes."""

    def settle_in(self, catalog: Catalog) -> None:
        """See which local copies an earlier life has left."""
        names: dict[str, set[str]] = {}
        for file in catalog.files:
            directory, _, name = file.path.rpartition("/")
            if file.remote and directory not in names:
                names[directory] = set(self.disk.list(directory))
            if file.remote and name in names[directory]:
                self._local[file.path] = file.bytes

    def upload(self, file: TierFile) -> TierFile:
        """The file as the catalog may name it once it is on the store. Raises: Corruption,
        BackendUnavailable, OSError."""
        data = self.disk.read(file.path)
        if len(data) != file.bytes:
            raise Corruption(f"{file.path}: {len(data)} bytes, the catalog has {file.bytes}")
        try:
            try:
                self.store.create(file.path, data)
            except ObjectExists:
                # Of a try that was never committed: nobody else writes below this address.
                if self.store.get(file.path) != data:
                    self.store.delete(file.path)
                    self.store.create(file.path, data)
            if self.store.get(file.path) != data:
                self.store.delete(file.path)
                raise BackendUnavailable(f"object {file.path}: what was stored does not read back")
        except BackendUnavailable as error:
            self.failing = str(error)
            raise
        self.failing = ""
        self._sent += 1
        self._local[file.path] = file.bytes
        return msgspec.structs.replace(file, remote=True, object_crc32=zlib.crc32(data))

    def bring(self, files: Iterable[TierFile]) -> None:
        """Have each file here, whole. Raises: Corruption, BackendUnavailable, OSError."""
        for file in files:
            directory, _, name = file.path.rpartition("/")
            if not file.remote or name in self.disk.list(directory):
                continue
            try:
                data = self.store.get(file.path)
            except ObjectMissing:
                raise Corruption(f"{file.path}: the store has no such object") from None
            except BackendUnavailable as error:
                self.failing = str(error)
                raise
            self.failing = ""
            if (len(data), zlib.crc32(data)) != (file.bytes, file.object_crc32):
                raise Corruption(f"{file.path}: the object is not what was stored")
            self.disk.create_directory(directory)
            self.disk.write_new(file.path, data)
            self._local[file.path] = file.bytes

    def delete(self, paths: Iterable[str]) -> None:
        """Objects that the catalog names no more. Raises: BackendUnavailable."""
        try:
            for path in paths:
                self.store.delete(path)
                self.failing = ""
        except BackendUnavailable as error:
            self.failing = str(error)
            raise

    def look(self, waiting: Sequence[TierFile], now_s: float) -> None:
        """Take note of what waits to be sent, and see whether a store that failed answers again:
        nothing else may want it for hours. Blocks for one call then."""
        self._waiting = (len(waiting), sum(file.bytes for file in waiting))
        if not waiting or self._sent != self._moved[0]:
            self._moved = (self._sent, now_s)
        if self.failing:
            try:
                self.store.facts("tiers/none")
            except ObjectMissing:
                self.failing = ""
            except BackendUnavailable as error:
                self.failing = str(error)

    def status(self, now_s: float) -> ObjectsStatus:
        files, size = self._waiting
        stalled_s = max(0.0, now_s - self._moved[1]) if files else 0.0
        return ObjectsStatus(self.failing, files, size, round(stalled_s, 1), self._sent)

    def _make_sure(self, file: TierFile) -> None:
        """The store has it: another store than the one it was sent to may not."""
        try:
            size = self.store.facts(file.path).bytes
        except ObjectMissing:
            size = -1
        if size != file.bytes:
            self.upload(file)

    def trim(self, catalog: Catalog) -> None:
        """Let local copies go, those of the oldest windows first, until the rest is in bounds."""
        held = {file.path: file for file in catalog.files if file.remote}
        self._local = {path: size for path, size in self._local.items() if path in held}
        over = sum(self._local.values()) - self.local_bytes_max
        for path in sorted(self._local, key=lambda path: held[path].until_ms):
            if over <= 0:
                return
            try:
                self._make_sure(held[path])
                self.disk.remove(path)
            except (OSError, SluicewayError) as error:
                structlog.get_logger("rollup").warning("copy_stays", path=path, error=str(error))
            over -= self._local.pop(path)
