"""Objects as files below a directory of this machine.

Invariant: a name appears only when its bytes are durable: written beside under a name that no
object can have, synced, then linked or renamed into place, then the directory synced.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sluiceway.errors import BackendUnavailable
from sluiceway.objects.interface import ObjectExists, ObjectFacts, ObjectMissing, check_name

# `check_name` lets names begin with a tilde; the space keeps ours apart from all that we write.
UNFINISHED = "~unfinished "


class EmbeddedObjects:
    """A directory. Two processes may share it; two threads too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()

    def create(self, name: str, data: bytes) -> None:
        target = self._path(name)
        with _failing(name):
            unfinished = self._write_beside(target, data)
            try:
                # A link, unlike a rename, refuses to replace.
                os.link(unfinished, target)
            except FileExistsError:
                raise ObjectExists(name) from None
            finally:
                unfinished.unlink()
            _sync_directory(target.parent)

    def put(self, name: str, data: bytes) -> None:
        target = self._path(name)
        with _failing(name):
            unfinished = self._write_beside(target, data)
            unfinished.replace(target)
            _sync_directory(target.parent)

    def get(self, name: str) -> bytes:
        with _failing(name):
            return self._path(name).read_bytes()

    def get_range(self, name: str, start: int, length: int) -> bytes:
        with _failing(name), open(self._path(name), "rb") as file:
            return os.pread(file.fileno(), length, start)

    def facts(self, name: str) -> ObjectFacts:
        with _failing(name):
            path = self._path(name)
            if not path.is_file():
                raise ObjectMissing(name)
            return ObjectFacts(name, path.stat().st_size)

    def list(self, prefix: str = "") -> Iterator[ObjectFacts]:
        top = self._path(prefix.rstrip("/")) if prefix else self._directory
        found = []
        with _failing(prefix):
            for directory, _, names in os.walk(top):
                for name in names:
                    if name.startswith(UNFINISHED):
                        continue
                    path = Path(directory, name)
                    relative = path.relative_to(self._directory).as_posix()
                    try:
                        found.append(ObjectFacts(relative, path.stat().st_size))
                    except FileNotFoundError:
                        continue  # deleted since it was listed
        yield from sorted(found, key=lambda facts: facts.name)

    def delete(self, name: str) -> None:
        with _failing(name):
            path = self._path(name)
            path.unlink(missing_ok=True)

    def sweep(self) -> int:
        left = [place for place in self._directory.rglob(f"{UNFINISHED}*") if place.is_file()]
        with _failing(""):
            for place in left:
                place.unlink(missing_ok=True)
        return len(left)

    def _path(self, name: str) -> Path:
        return self._directory / check_name(name)

    def _write_beside(self, target: Path, data: bytes) -> Path:
        try:
            _make_directories(target.parent)
        except OSError as error:
            raise BackendUnavailable(f"{target.parent}: {error.strerror}") from error
        unfinished = target.parent / f"{UNFINISHED}{os.getpid()} {next(self._numbers)}"
        with open(unfinished, "wb") as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
        return unfinished


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """The disk's errors as the role tells them."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ObjectMissing(name) from None
    except OSError as error:
        raise BackendUnavailable(f"object {name}: {error}") from error


def _make_directories(directory: Path) -> None:
    """Durable: each new directory's entry is synced."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
