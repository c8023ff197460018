"""The data directory, and the directory of the sockets between the two sides.

Invariant: nothing under the data directory is touched before its lock is held.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from errno import EEXIST, ENOTDIR
from pathlib import Path

from sluiceway.kernels import Disk

TENANTS_DATABASE = "tenants.db"
TENANTS_SNAPSHOT = "tenants.snapshot"
OURS = ("lock", "hot/metrics", "journal/metrics")
"""A directory that holds one of these is ours, whatever else is in it."""
TENANTS = {f"{TENANTS_DATABASE}{end}" for end in ("", "-wal", "-shm")} | {TENANTS_SNAPSHOT}
QUERIES = "queries"
COST = "cost"
UNREADABLE = "unreadable"
CACHE = "cache"
UNOWNED = {
    "identity",
    "keys.toml",
    "offsite.json",
    "lost+found",
    "quarantine",
    "run",
    "tiers",
    CACHE,
    QUERIES,
    COST,
    UNREADABLE,
    *TENANTS,
}
"""What a fresh data directory may hold already."""
SOCKET_PATH_BYTES_MAX = 100  # sockaddr_un holds 108


def open_disk(data_dir: Path) -> Disk:
    """The data directory, locked. Raises: OSError, BackendUnavailable (somebody has it)."""
    check_directory(data_dir)
    data_dir.mkdir(parents=True, exist_ok=True)
    disk = Disk.real(str(data_dir))
    disk.lock()
    return disk


def lock_inode(data_dir: Path) -> int:
    """What tells a data directory from others, whatever its path. Raises: OSError."""
    return (data_dir / "lock").stat().st_ino


def check_directory(data_dir: Path) -> None:
    """A directory of ours, or one that nobody has put anything into. Raises: OSError."""
    if not data_dir.exists():
        return
    if not data_dir.is_dir():
        raise NotADirectoryError(ENOTDIR, "not a directory", str(data_dir))
    names = {path.name for path in data_dir.iterdir() if not path.name.startswith(".")}
    foreign = names - UNOWNED
    if foreign and not any((data_dir / path).exists() for path in OURS):
        words = f"holds files of something else ({min(foreign)}): choose an empty directory"
        raise FileExistsError(EEXIST, words, str(data_dir))


@contextlib.contextmanager
def socket_directory(data_dir: Path) -> Iterator[Path]:
    """A directory that only this user may enter, for the sockets between the two sides."""
    inside = data_dir.resolve() / "run"
    if len(os.fsencode(inside / "evaluate.sock")) <= SOCKET_PATH_BYTES_MAX:
        inside.mkdir(mode=0o700, parents=True, exist_ok=True)
        inside.chmod(0o700)
        yield inside
    else:  # a deep data directory: its socket paths would not fit into an address
        with tempfile.TemporaryDirectory(prefix="sluiceway-") as elsewhere:
            yield Path(elsewhere)
