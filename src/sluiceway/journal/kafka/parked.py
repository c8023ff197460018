"""Poison records, kept as they came for a person to look at.

Invariant: a file is durable before anything behind its record is applied; there are at most
`FILES_MAX` of `BYTES_MAX` together, what is beyond is counted and not kept.
"""

import structlog

from sluiceway.kernels import Disk

DIRECTORY = "journal/parked"
FILES_MAX = 1_000
BYTES_MAX = 256 << 20
log = structlog.get_logger()


class Parked:
    """One thread's."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._names = set(disk.list(DIRECTORY))
        self._bytes = sum(len(disk.read(f"{DIRECTORY}/{name}")) for name in sorted(self._names))
        self.records = 0
        """Met since the start."""

    def park(self, partition: int, offset: int, value: bytes, why: str) -> None:
        """Blocks. Raises: OSError; then it is to be parked again."""
        name = f"metrics-{partition:05d}-{offset:020d}.record"
        kept = name in self._names  # by an earlier life, before its next seal
        if not kept and len(self._names) < FILES_MAX and self._bytes + len(value) <= BYTES_MAX:
            self._disk.create_directory(DIRECTORY)
            self._disk.write_new(f"{DIRECTORY}/{name}", value)
            self._names.add(name)
            self._bytes += len(value)
            kept = True
        self.records += 1
        log.error("record_parked", partition=partition, offset=offset, why=why, kept=kept)
