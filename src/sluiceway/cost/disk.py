"""What lies in the data directory, file by file, as `du` counts it.

Invariant: reads names, sizes and heads of files, never changes one; a file that goes away while it
looks is not there. Bytes are those that the file system holds for a file (its blocks), so that the
sum is what the disk is short of.
"""

import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

FILES_MAX = 1_000_000
"""Past it the rest is one sum."""
HEADS_MAX = 8_192
"""Files whose heads are remembered: they never change."""
SECTOR_BYTES = 512
REGISTRY_SECTION = 1
STATE_HEAD, STATE_SECTION = struct.Struct("<8sHBBIQQI"), struct.Struct("<HHQQII")
LETTERS_HEAD, LETTERS_CHUNK = struct.Struct("<8sHHIQQI"), struct.Struct("<IIIQqqHI")
CHUNKS_MAX = 1_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class FileOnDisk:
    """`path` is relative to the data directory; `bytes` are held, `size` is what it says."""

    path: str
    bytes: int
    size: int


@dataclass(frozen=True)
class Directory:
    """All files, what the directories themselves take, and files past the limit."""

    files: tuple[FileOnDisk, ...]
    directory_bytes: int
    uncounted_bytes: int = 0

    @property
    def bytes(self) -> int:
        return self.directory_bytes + self.uncounted_bytes + sum(f.bytes for f in self.files)


def look(root: Path, files_max: int = FILES_MAX) -> Directory:
    """Every file under `root`. Blocks. Raises: OSError where `root` cannot be read."""
    files: list[FileOnDisk] = []
    directories = held(root.stat())
    uncounted = 0
    for entry in _entries(root):
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if entry.is_dir(follow_symlinks=False):
            directories += held(status)
        elif len(files) < files_max:
            path = os.path.relpath(entry.path, root)
            files.append(FileOnDisk(path, held(status), status.st_size))
        else:
            uncounted += held(status)
    return Directory(tuple(files), directories, uncounted)


def held(status: os.stat_result) -> int:
    return status.st_blocks * SECTOR_BYTES


def _entries(root: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                entries = list(found)
        except OSError:
            continue
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


@dataclass
class Heads:
    """Heads of files that never change, read once. One thread."""

    root: Path
    _known: OrderedDict[str, object] = field(default_factory=OrderedDict)

    def registry_share(self, path: str) -> float:
        """Which part of a state file (docs/formats/state.md) is the registry's."""
        return self._remember(path, registry_share, 0.0)

    def letter_bytes(self, path: str) -> dict[str, int]:
        """Bytes of a file of dead letters (docs/formats/deadletters.md) by tenant."""
        return self._remember(path, letter_bytes, {})

    def _remember(self, path: str, read: Callable[[Path], T], absent: T) -> T:
        if path in self._known:
            self._known.move_to_end(path)
            return self._known[path]  # type: ignore[return-value]
        try:
            found = read(self.root / path)
        except (OSError, struct.error, UnicodeDecodeError):
            return absent  # gone, or damaged: shared then
        self._known[path] = found
        if len(self._known) > HEADS_MAX:
            self._known.popitem(last=False)
        return found


def registry_share(path: Path) -> float:
    """Raises: OSError, struct.error."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        sections = STATE_HEAD.unpack(file.read(STATE_HEAD.size))[4]
        registry = 0
        for _ in range(min(sections, 64)):
            tag, _, stored, *_ = STATE_SECTION.unpack(file.read(STATE_SECTION.size))
            file.seek(stored, os.SEEK_CUR)
            if tag == REGISTRY_SECTION:
                registry += STATE_SECTION.size + stored
    return min(1.0, registry / size) if size else 0.0


def letter_bytes(path: Path) -> dict[str, int]:
    """Raises: OSError, struct.error, UnicodeDecodeError."""
    by_tenant: dict[str, int] = {}
    with open(path, "rb") as file:
        chunks = LETTERS_HEAD.unpack(file.read(LETTERS_HEAD.size))[3]
        for _ in range(min(chunks, CHUNKS_MAX)):
            stored, *_, length, _ = LETTERS_CHUNK.unpack(file.read(LETTERS_CHUNK.size))
            tenant = file.read(length).decode()
            file.seek(4 + stored, os.SEEK_CUR)
            whole = LETTERS_CHUNK.size + length + 4 + stored
            by_tenant[tenant] = by_tenant.get(tenant, 0) + whole
    return by_tenant
