"""Whose backups a place holds: the identity of a data directory, and what it was made of.

Invariant: a place is one directory's. A directory that was restored goes on in the place that it
came from while nobody else has; then the former one may not any more. docs/formats/backup.md.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.services.backup.index import Index
from sluiceway.tiers import two_copies
from sluiceway.tiers.paths import COLD_DIRECTORY, WARM_DIRECTORY

NAME = "identity"
FORMAT_VERSION = 1
ID_BYTES = 8
TELLING = ("hot/metrics/blocks/", f"{WARM_DIRECTORY}/", f"{COLD_DIRECTORY}/")
"""Directories of files that two data directories hardly have alike."""
Key = tuple[str, int, int]
"""(path, bytes, mark) of a file."""
Random = Callable[[int], bytes]


class Source(msgspec.Struct, frozen=True):
    """The backup that a directory was restored from."""

    directory: str
    number: int
    taken_ms: int


class Identity(msgspec.Struct, frozen=True):
    """The file `identity` of a data directory."""

    version: int
    directory: str
    source: Source | None = None


def source_of(index: Index) -> Source:
    return Source(index.directory, index.number, index.taken_ms)


def make_identity(random: Random, source: Source | None = None) -> Identity:
    return Identity(FORMAT_VERSION, random(ID_BYTES).hex(), source)


def write_identity(data_dir: Path, identity: Identity) -> None:
    """Durable; it appears whole or not at all. Raises: OSError, FileExistsError."""
    beside = data_dir / f".{NAME}-{os.getpid()}"
    try:
        with beside.open("wb") as out:
            out.write(two_copies.encode(identity))
            out.flush()
            os.fsync(out.fileno())
        os.link(beside, data_dir / NAME)
    finally:
        beside.unlink(missing_ok=True)
    descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def identity_of(data_dir: Path, random: Random) -> Identity:
    """The directory's; made now where it has none. Raises: Corruption, OSError."""
    place = data_dir / NAME
    if not place.exists():
        try:
            write_identity(data_dir, make_identity(random))
        except FileExistsError:
            pass  # Another backup was faster.
    found = two_copies.decode(place.read_bytes(), Identity, FORMAT_VERSION, "data directory")
    if found is None:
        words = f"{place} is damaged in both copies: remove it, and back up to another place"
        raise Corruption(words)
    return found


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Nobody else backs this directory up meanwhile. Raises: BackendUnavailable, OSError."""
    with (data_dir / NAME).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackendUnavailable(f"another backup of {data_dir} is running") from None
        yield


def refuse_other(identity: Identity, former: Index | None, files: Iterable[Key]) -> None:
    """Raises ValueError where the place's newest backup is of another directory than this one,
    which has `files`."""
    if former is None or former.directory == identity.directory:
        return
    if identity.source == source_of(former):
        return
    if not former.directory:
        held = telling((file.path, file.bytes, file.mark) for file in former.files)
        if not held or held & telling(files):
            return
        words = f"backup {former.number} there (of before directories had identities) has no file"
        raise ValueError(f"{words} of this directory: choose another place")
    words = f"backup {former.number} there is of another data directory"
    told = f"{former.directory}, this one is {identity.directory}"
    raise ValueError(f"{words} ({told}): choose another place, one for each directory")


def telling(files: Iterable[Key]) -> set[Key]:
    return {file for file in files if file[0].startswith(TELLING)}
