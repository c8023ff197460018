"""The query log's files: a directory a tenant, numbered files in it, oldest first out.

Invariant: a tenant's files hold at most `tenant_bytes_max`, all together `bytes_max`, give or take
the file that is being written. One writer; readers may open any file at any time.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from sluiceway.query.querylog.entry import VERSION, Head, encode_line
from sluiceway.tenants.model import directory_name

FILES_PER_TENANT = 16
SUFFIX = ".log"
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
DAY_S = 86_400


@dataclass(frozen=True)
class LogLimits:
    """Bytes on disk, of all and of one tenant, and how long a file is kept after its last line."""

    bytes_max: int
    tenant_bytes_max: int
    days_max: int

    @property
    def file_bytes_max(self) -> int:
        return max(1, self.tenant_bytes_max // FILES_PER_TENANT)


def files_of(root: Path, tenant: str) -> list[Path]:
    """A tenant's files, oldest first."""
    with contextlib.suppress(OSError):
        return sorted((root / directory_name(tenant)).glob(f"*{SUFFIX}"))
    return []


def tenants_in(root: Path) -> list[str]:
    """Who has a log."""
    with contextlib.suppress(OSError):
        return sorted(unquote(path.name) for path in root.iterdir() if path.is_dir())
    return []


class LogFiles:
    """Appends lines and keeps to the limits. One thread at a time."""

    def __init__(self, root: Path, limits: LogLimits) -> None:
        """Reads the directory's names and sizes. Raises: OSError."""
        self._root = root
        self._limits = limits
        self._bytes: dict[str, int] = {}
        for tenant in tenants_in(root):
            self._bytes[tenant] = sum(file.stat().st_size for file in files_of(root, tenant))

    @property
    def bytes_held(self) -> int:
        return sum(self._bytes.values())

    def append(self, tenant: str, lines: Iterable[bytes]) -> None:
        """Blocks. Raises: OSError, and then some of the lines may be there."""
        data = b"".join(lines)
        files = files_of(self._root, tenant)
        path = files[-1] if files else None
        if path is None or path.stat().st_size >= self._limits.file_bytes_max:
            number = 0 if path is None else int(path.stem) + 1
            directory = self._root / directory_name(tenant)
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            path = directory / f"{number:010d}{SUFFIX}"
            data = encode_line(Head(VERSION)) + data
        elif torn(path):
            data = b"\n" + data
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE), "ab") as out:
            out.write(data)
        self._bytes[tenant] = self._bytes.get(tenant, 0) + len(data)
        while self._bytes[tenant] > self._limits.tenant_bytes_max and self._drop_oldest(tenant):
            pass
        while self.bytes_held > self._limits.bytes_max:
            if not self._drop_oldest(max(self._bytes, key=lambda name: self._bytes[name])):
                break

    def sweep(self, now_s: float, deleting: Iterable[str] = ()) -> None:
        """Remove what is too old, and all of the tenants that are to go. Blocks."""
        for tenant in deleting:
            if self._bytes.pop(tenant, None) is not None:
                shutil.rmtree(self._root / directory_name(tenant), ignore_errors=True)
        oldest_s = now_s - self._limits.days_max * DAY_S
        for tenant in list(self._bytes):
            for path in files_of(self._root, tenant):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < oldest_s:
                        self._remove(tenant, path)

    def _drop_oldest(self, tenant: str) -> bool:
        """Remove the tenant's oldest file, if that is not its only one."""
        files = files_of(self._root, tenant)
        if len(files) < 2:
            return False
        self._remove(tenant, files[0])
        return True

    def _remove(self, tenant: str, path: Path) -> None:
        size = path.stat().st_size
        path.unlink()
        self._bytes[tenant] -= size


def torn(path: Path) -> bool:
    """Does the file's last line lack its end?"""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
