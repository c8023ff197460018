"""Blocks of a shard that was taken over, read from the object store as they are asked for.

Invariant: what the cache keeps never passes `bytes_max`, one piece apart for each thread that
reads; what is read is checked by whoever asked (a block's directory and pages have checksums).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from sluiceway.errors import BackendUnavailable, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.objects.interface import ObjectMissing, ObjectStore
from sluiceway.services.backup.index import PIECE_BYTES as OBJECT_BYTES
from sluiceway.services.backup.inventory import HOT_DIRECTORY
from sluiceway.services.offsite.document import TermFile

DIRECTORY = "cache/blocks"
PIECE_BYTES = 256 << 10
"""Fetched at once: some dozen pages, or the directory of some dozen megabytes."""
ENDS_BYTES = 64
"""Of both ends of a block, which every reader asks for first."""
FETCHES_AT_ONCE = 16
BLOCKS = f"{HOT_DIRECTORY}/blocks/"
log = structlog.get_logger()
Piece = tuple[str, int]
"""(path of the file, number of the piece)."""


def is_lazy(file: TermFile) -> bool:
    """May it stay where it is until it is asked for? State is needed at once."""
    return file.path.startswith(BLOCKS)


class BlocksElsewhere:
    """A cache of pieces, as files in a directory of its own. Any thread."""

    def __init__(
        self, store: ObjectStore, directory: Path, files: Iterable[TermFile], bytes_max: int
    ) -> None:
        """What an earlier process left in the directory is removed."""
        self._store = store
        self._directory = directory
        self._files = {file.path: file for file in files}
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._kept: OrderedDict[Piece, int] = OrderedDict()
        self._fetching: dict[Piece, threading.Event] = {}
        self._numbers = {path: number for number, path in enumerate(self._files)}
        self.kept_bytes = 0
        self.fetched_bytes = 0
        directory.mkdir(parents=True, exist_ok=True)
        for place in directory.iterdir():
            place.unlink()

    def disk(self, disk: Disk) -> Disk:
        """The disk with our files."""
        return disk.elsewhere({path: f.bytes for path, f in self._files.items()}, self.read)

    def fetch_ends(self) -> None:
        """What opening all blocks will ask for, many at once. Blocks. What fails is asked again
        by whoever opens."""

        def both(file: TermFile) -> None:
            try:
                self.read(file.path, 0, ENDS_BYTES)
                self.read(file.path, max(0, file.bytes - ENDS_BYTES), ENDS_BYTES)
            except (SluicewayError, OSError) as error:
                log.warning("block_not_fetched", path=file.path, error=str(error))

        with ThreadPoolExecutor(FETCHES_AT_ONCE, "blocks") as pool:
            list(pool.map(both, self._files.values()))

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Bytes of a file; short only at its end. Blocks for the store. Raises: ObjectMissing,
        BackendUnavailable, OSError."""
        file = self._files[path]
        end = min(file.bytes, offset + length)
        found = bytearray()
        while (at := offset + len(found)) < end:
            number = at // PIECE_BYTES
            piece = self._piece(file, number)
            start = at - number * PIECE_BYTES
            part = piece[start : start + end - at]
            if not part:
                raise BackendUnavailable(f"{path}: its object is shorter than the checkpoint says")
            found += part
        return bytes(found)

    def _piece(self, file: TermFile, number: int) -> bytes:
        key = (file.path, number)
        while True:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    try:
                        return self._place(key).read_bytes()
                    except FileNotFoundError:
                        self.kept_bytes -= self._kept.pop(key)
                fetched = self._fetching.get(key)
                if fetched is None:
                    fetched = self._fetching[key] = threading.Event()
                    break
            fetched.wait()
        try:
            data = self._fetch(file, number)
            self._keep(key, data)
        finally:
            with self._lock:
                self._fetching.pop(key)
            fetched.set()
        return data

    def _fetch(self, file: TermFile, number: int) -> bytes:
        """A piece lies in one object: objects are a whole number of pieces."""
        start = number * PIECE_BYTES
        length = min(PIECE_BYTES, file.bytes - start)
        at, within = divmod(start, OBJECT_BYTES)
        name = [name for name, _ in file.pieces()][at]
        try:
            return self._store.get_range(name, within, length)
        except ObjectMissing as error:
            raise BackendUnavailable(f"{name}: {error}") from error

    def _keep(self, key: Piece, data: bytes) -> None:
        self._place(key).write_bytes(data)
        with self._lock:
            self._kept[key] = len(data)
            self.kept_bytes += len(data)
            self.fetched_bytes += len(data)
            while self.kept_bytes > self._bytes_max and self._kept:
                oldest, size = self._kept.popitem(last=False)
                self.kept_bytes -= size
                self._place(oldest).unlink(missing_ok=True)

    def _place(self, key: Piece) -> Path:
        return self._directory / f"{self._numbers[key[0]]:06d}-{key[1]:06d}"
