"""Notes of warm and cold files that could not be read: left by who met the damage, read by who can
do something about it.

Invariant: a note names one file of the catalog; it goes when the catalog names that file no more.
The read side leaves them, the rollup looks at them and clears them away.
"""

import hashlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import structlog

from sluiceway.kernels import Disk

NOTES_DIRECTORY = "tiers/damaged"
NOTES_MAX = 1_024
"""Past it no more are left: the first ones say enough."""


class Note(msgspec.Struct, frozen=True):
    """A file, what was found, and when first."""

    path: str
    what: str
    at_ms: int


def note_name(path: str) -> str:
    return f"{hashlib.blake2b(path.encode(), digest_size=16).hexdigest()}.json"


class NoteTaker:
    """Leaves notes in a data directory, from any process. Thread-safe."""

    def __init__(self, data_dir: Path, now_ms: Callable[[], int]) -> None:
        self._directory = data_dir / NOTES_DIRECTORY
        self._now_ms = now_ms
        self._log = structlog.get_logger("tiers")
        self._left: set[str] = set()

    def leave(self, path: str, what: str) -> None:
        """Note that `path` is damaged; told in the log the first time. Never raises: a query that
        met damage has an answer all the same."""
        if path in self._left or len(self._left) >= NOTES_MAX:
            return
        self._left.add(path)
        self._log.error("file_damaged", path=path, what=what)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            text = msgspec.json.encode(Note(path, what, self._now_ms()))
            unfinished = self._directory / f"{note_name(path)}.{os.getpid()}.part"
            unfinished.write_bytes(text)
            unfinished.replace(self._directory / note_name(path))
        except OSError as error:
            self._log.error("damage_not_noted", path=path, error=str(error))


class Notes:
    """The notes, as the rollup sees them."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def held(self) -> dict[str, Note]:
        """By path. Those that are not whole are left out. Raises: OSError."""
        found = {}
        for name in self._disk.list(NOTES_DIRECTORY)[:NOTES_MAX]:
            if not name.endswith(".json"):
                continue
            try:
                note = msgspec.json.decode(self._disk.read(f"{NOTES_DIRECTORY}/{name}"), type=Note)
            except (msgspec.MsgspecError, FileNotFoundError):
                continue
            found[note.path] = note
        return found

    def sweep(self, named: Collection[str]) -> int:
        """Clear away notes of files that the catalog names no more; how many are left. Raises:
        OSError."""
        held = self.held()
        gone = [path for path in held if path not in named]
        for path in gone:
            self._disk.remove(f"{NOTES_DIRECTORY}/{note_name(path)}")
        return len(held) - len(gone)
