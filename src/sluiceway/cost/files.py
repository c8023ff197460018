"""The files of cost: days that are being summed, months that are closed.

Invariant: a file is whole or told to be damaged, never half believed: a line of JSON behind its
CRC-32, written beside and renamed (days) or created once (months). At most `DAYS_KEPT` days and
`MONTHS_KEPT` months are held. Layout: docs/formats/cost.md.
"""

import contextlib
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sluiceway.cost.usage import Day

DAY_NAME, MONTH_NAME = re.compile(r"\d{4}-\d{2}-\d{2}"), re.compile(r"\d{4}-\d{2}")
SUFFIX, NEW_SUFFIX = ".json", ".new"
DAYS_KEPT, MONTHS_KEPT = 100, 120
FILE_BYTES_MAX = 64 << 20
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
SPEND, VOLUMES = "spend", "volumes"
T = TypeVar("T")


class CostFiles:
    """One writer; readers may open any file at any time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._days, self._months = root / "days", root / "months"

    def days(self) -> list[str]:
        """Names of the days that are held, ascending."""
        return names(self._days, DAY_NAME)

    def months(self) -> list[str]:
        """Names of the closed months, ascending."""
        return names(self._months, MONTH_NAME)

    def read_day(self, name: str) -> Day | None:
        """None where it is not there or damaged."""
        return read_file(self._days / f"{name}{SUFFIX}", Day)

    def stamp_of_day(self, name: str) -> tuple[int, int] | None:
        """What tells a day's file from another of its name."""
        try:
            status = (self._days / f"{name}{SUFFIX}").stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size)

    def write_day(self, day: Day) -> None:
        """Blocks until it is durable. Raises: OSError."""
        replace_file(self._days / f"{day.day}{SUFFIX}", day)

    def read_month(self, name: str, kind: type[T]) -> T | None:
        return read_file(self._months / f"{name}{SUFFIX}", kind)

    def close_month(self, name: str, noun: object) -> bool:
        """Write it, once; False where it is closed already. Raises: OSError."""
        path = self._months / f"{name}{SUFFIX}"
        make(path.parent)
        beside = path.with_suffix(NEW_SUFFIX)
        write_durably(beside, framed(noun))
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        finally:
            beside.unlink()
            sync_directory(path.parent)
        return True

    def read_spend(self, kind: type[T]) -> T | None:
        return read_file(self._root / f"{SPEND}{SUFFIX}", kind)

    def write_spend(self, noun: object) -> None:
        replace_file(self._root / f"{SPEND}{SUFFIX}", noun)

    def read_volumes(self, kind: type[T]) -> T | None:
        return read_file(self._root / f"{VOLUMES}{SUFFIX}", kind)

    def write_volumes(self, noun: object) -> None:
        replace_file(self._root / f"{VOLUMES}{SUFFIX}", noun)

    def sweep(self) -> None:
        """Remove what is too old: days only once their month is closed. Blocks."""
        closed, days = set(self.months()), self.days()
        for name in days[: max(0, len(days) - DAYS_KEPT)]:
            if name[:7] in closed:
                remove(self._days / f"{name}{SUFFIX}")
        months = self.months()
        for name in months[: max(0, len(months) - MONTHS_KEPT)]:
            remove(self._months / f"{name}{SUFFIX}")


def names(directory: Path, pattern: re.Pattern[str]) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        found = [path.stem for path in directory.iterdir() if path.suffix == SUFFIX]
    return sorted(name for name in found if pattern.fullmatch(name))


def framed(noun: object) -> bytes:
    text = msgspec.json.encode(noun)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def read_file(path: Path, kind: Callable[..., T] | type[T]) -> T | None:
    """The noun of a file; None where there is none to be had."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    text = data[9:-1]
    if data != b"%08x %b\n" % (zlib.crc32(text), text):
        return None
    try:
        decoded: Any = msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError:
        return None
    found: T = decoded
    return found


def replace_file(path: Path, noun: object) -> None:
    """The file as a whole, durably: a crash leaves the one before or this one."""
    make(path.parent)
    beside = path.with_suffix(NEW_SUFFIX)
    write_durably(beside, framed(noun))
    beside.replace(path)
    sync_directory(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with open(os.open(path, flags, FILE_MODE), "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def make(directory: Path) -> None:
    directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)


def sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
