"""The files of calls: what each side asked of object stores and brokers, since ever.

Invariant: each side keeps its sums in a file of its own, which no other writes, and goes on from
them in its next life. A side that is killed forgets what it did after it last kept them.
"""

import contextlib
import fcntl
import os
import threading
from pathlib import Path

import structlog

from sluiceway.cost.calls import CallRow, Calls, together
from sluiceway.cost.files import DIRECTORY_MODE, FILE_MODE, read_file, replace_file

DIRECTORY = "calls"
SIDES = ("write", "read", "commands")
KEEP_S = 5.0
log = structlog.get_logger("calls")


class CallKeeper:
    """Brings one side's sums to its file, on top of those of its earlier lives."""

    def __init__(self, calls: Calls, root: Path, side: str) -> None:
        """`root`: of the files of cost."""
        self._calls = calls
        self._path = place(root, side)
        self._before = read_rows(self._path)
        self._kept: list[CallRow] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluiceway-calls", daemon=True)

    def keep(self) -> None:
        """Write the sums where they changed. Blocks. Raises: OSError."""
        rows = self._calls.rows()
        if rows != self._kept:
            replace_file(self._path, together(self._before, rows))
            self._kept = rows

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._try()

    def _run(self) -> None:
        while not self._stopping.wait(KEEP_S):
            self._try()

    def _try(self) -> None:
        try:
            self.keep()
        except OSError as error:
            log.warning("calls_not_kept", error=str(error))


def add_calls(root: Path, calls: Calls) -> None:
    """Add what a command did to the sums of all commands. Blocks for another one. Raises:
    OSError."""
    path = place(root, "commands")
    path.parent.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, FILE_MODE)
    with contextlib.closing(os.fdopen(lock, "r+b")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        replace_file(path, together(read_rows(path), calls.rows()))


def read_calls(root: Path) -> dict[str, list[CallRow]]:
    """By side; one that has kept nothing is left out."""
    found = {side: read_rows(place(root, side)) for side in SIDES}
    return {side: rows for side, rows in found.items() if rows}


def place(root: Path, side: str) -> Path:
    return root / DIRECTORY / f"{side}.json"


def read_rows(path: Path) -> list[CallRow]:
    return read_file(path, list[CallRow]) or []
