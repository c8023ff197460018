"""Files of windows on an object store: brought there once they are settled, and back when a task
needs one of them.

Invariant: the catalog calls a file remote only after the store has given back the bytes that were
written here; a local copy goes only after that. An object's name is the file's path, or, of a
shard that others may take over, one of its term's own (docs/formats/offsite.md).
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from sluiceway.errors import BackendUnavailable, Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.objects.interface import ObjectExists, ObjectMissing, ObjectStore
from sluiceway.tiers.catalog import Catalog, Grace, TierFile, names_of


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
class Term:
    """A start of a shard that others may take over. Its files are on the store before a catalog
    names them, under names of its own; what goes there is for the checkpoint's owner to remove."""

    number: int
    placed_before: bool
    """The checkpoint that it began from has a catalog, of which every file was placed."""
    there: Callable[[str], bool]
    """Was the object on the store when the term began?"""
    in_checkpoint: Callable[[], bool]
    """Has the newest checkpoint a catalog by now? A successor that begins from one that has none
    removes the objects, which no checkpoint of its own names."""
    all_placed: bool = False
    """Seen once; what is committed since then was placed before."""
    own: set[str] = field(default_factory=set)
    """Objects of this term that the catalog names, has in its grace list, or may come to name."""

    def name_of(self, file: TierFile, crc32: int) -> str:
        """Nobody else's: neither another term's, nor that of other bytes of the same path."""
        return f"files/{self.number:06d}/{file.path}~{file.bytes}-{crc32:08x}"

    def has(self, file: TierFile) -> bool:
        """Is it on the store?"""
        name = file.object
        return bool(name) and (self.placed_before or name in self.own or self.there(name))


@dataclass(slots=True)
class RemoteTier:
    """One data directory's store. Used by the rollup's thread; `status` is read by any."""

    store: ObjectStore
    disk: Disk
    local_bytes_max: int
    """Of local copies of files that are on the store."""
    term: Term | None = None
    """None: settled files alone go there, under their paths, which no other process writes to."""
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

    def place(self, file: TierFile) -> TierFile:
        """The file as a catalog may name it: on the store, where there is a term. Blocks for the
        store. Raises: as `upload`."""
        return file if self.term is None or self.term.has(file) else self.upload(file)

    def insist(self) -> None:
        """Nothing is made for a store that did not answer last time, and does not now. Raises:
        BackendUnavailable."""
        if self.term is not None and self.failing:
            self._ask()
            if self.failing:
                raise BackendUnavailable(self.failing)

    def unplaced(self, files: Iterable[TierFile]) -> list[TierFile]:
        """Those that a checkpoint's catalog must not name yet."""
        term = self.term
        if term is None or term.all_placed:
            return []
        return [file for file in files if not term.has(file)]

    def are_placed(self, catalog: Catalog) -> bool:
        """May a checkpoint have this catalog?"""
        placed = not self.unplaced(catalog.files)
        if placed and self.term is not None:
            self.term.all_placed = True
        return placed

    def kept(self, catalog: Catalog) -> set[str]:
        """Objects that are to stay though no checkpoint may name them yet."""
        own = set() if self.term is None else set(self.term.own)
        return own | names_of(catalog)

    def upload(self, file: TierFile) -> TierFile:
        """The file as the catalog may name it once it is on the store. Raises: Corruption,
        BackendUnavailable, OSError."""
        data = self.disk.read(file.path)
        if len(data) != file.bytes:
            raise Corruption(f"{file.path}: {len(data)} bytes, the catalog has {file.bytes}")
        crc32, name = zlib.crc32(data), ""
        if self.term is not None:
            name = self.term.name_of(file, crc32)
            self.term.own.add(name)  # before it is there, or it may be taken for a stray
        self._store_as(name or file.path, data)
        self._local[file.path] = file.bytes
        return msgspec.structs.replace(file, remote=True, object_crc32=crc32, object=name)

    def _store_as(self, name: str, data: bytes) -> None:
        try:
            try:
                self.store.create(name, data)
            except ObjectExists:
                # Of a try that was never committed: nobody else writes to this name.
                if self.store.get(name) != data:
                    self.store.delete(name)
                    self.store.create(name, data)
            if self.store.get(name) != data:
                self.store.delete(name)
                raise BackendUnavailable(f"object {name}: what was stored does not read back")
        except BackendUnavailable as error:
            self.failing = str(error)
            raise
        self.failing = ""
        self._sent += 1

    def bring(self, files: Iterable[TierFile]) -> None:
        """Have each file here, whole. Raises: Corruption, BackendUnavailable, OSError."""
        for file in files:
            directory, _, name = file.path.rpartition("/")
            if not file.remote or name in self.disk.list(directory):
                continue
            try:
                data = self.store.get(file.object_name)
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

    def delete(self, held: Iterable[Grace]) -> None:
        """Objects of files that leave the grace list; a term's are left to its checkpoints, which
        may name them still. Raises: BackendUnavailable."""
        if self.term is not None:
            return
        try:
            for one in held:
                self.store.delete(one.object or one.path)
                self.failing = ""
        except BackendUnavailable as error:
            self.failing = str(error)
            raise

    def let_go(self, held: Iterable[Grace]) -> None:
        """These have left the grace list: whoever has the shard's fence removes them."""
        if self.term is not None:
            self.term.own.difference_update(one.object for one in held)

    def look(self, waiting: Sequence[TierFile], now_s: float) -> None:
        """Take note of what waits to be sent, and see whether a store that failed answers again:
        nothing else may want it for hours. Blocks for one call then."""
        self._waiting = (len(waiting), sum(file.bytes for file in waiting))
        if not waiting or self._sent != self._moved[0]:
            self._moved = (self._sent, now_s)
        if self.failing:
            self._ask()

    def _ask(self) -> None:
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
            size = self.store.facts(file.object_name).bytes
        except ObjectMissing:
            size = -1
        if size != file.bytes:
            data = self.disk.read(file.path)
            if (len(data), zlib.crc32(data)) != (file.bytes, file.object_crc32):
                raise Corruption(f"{file.path}: the copy here is damaged, and the store has none")
            self._store_as(file.object_name, data)

    def trim(self, catalog: Catalog) -> None:
        """Let local copies go, those of the oldest windows first, until the rest is in bounds; of a
        term none before a checkpoint has a catalog: they may be the last."""
        if self.term is not None and not self.term.in_checkpoint():
            return
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
