"""A look at what is used: the disk, the shard's usage, counters, queries since the look before.

Invariant: changes nothing. What cannot be read of a process (it is gone) is left out, and what the
shard cannot say is an error: a look is whole or none.
"""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from sluiceway.clock import Clock
from sluiceway.cost.attribution import attribute, of_rollups
from sluiceway.cost.call_files import read_calls
from sluiceway.cost.disk import Heads, look
from sluiceway.cost.usage import Readings, Sample, UserRow
from sluiceway.errors import Corruption, SluicewayError
from sluiceway.kernels import Disk, warm_usage
from sluiceway.tenants.model import DEFAULT_TENANT
from sluiceway.tiers.catalog import Catalog
from sluiceway.tiers.catalog_store import CatalogFollower

TIMEOUT_MS = 60_000
METRICS_MAX = 2_000
"""Told apart by one look; a tenant's smaller ones are one row."""
WARM_FILES_KNOWN_MAX = 512
"""Files whose metrics are remembered."""
LOG_LAG_MS = 90_000
"""Repeats of a query are one line of the log, written up to a minute late: looked at after that."""
COST = "cost"
"""Directory of the files of cost."""
TICKS_A_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
log = structlog.get_logger()
USER_TICKS, SYSTEM_TICKS, STARTED, RESIDENT = 11, 12, 19, 21
"""Fields of /proc/PID/stat behind the command's name."""


class Asking(Protocol):
    """The shard's end of it: `kernels.ShardClient`."""

    def usage(self, request: dict[str, Any]) -> dict[str, Any]: ...
    def ledger(self, request: dict[str, Any]) -> dict[str, Any]: ...


class Asked(Protocol):
    """A line of the query log."""

    tenant: str
    key: str
    time_ms: int
    count: int
    duration_ms: float
    points: int
    bytes: int


@dataclass(frozen=True)
class Process:
    """CPU seconds since its start, resident bytes, and what tells this life from another."""

    cpu_s: float
    resident_bytes: int
    started: int


def process(number: int) -> Process | None:
    """None where there is no such process, or the system does not say."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    ticks = int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])
    resident = int(fields[RESIDENT]) * PAGE_BYTES
    return Process(ticks / TICKS_A_S, resident, int(fields[STARTED]) ^ (number << 40))


class UsageLook:
    """Takes looks, one at a time. Any thread; blocks as long as walking the directories takes."""

    def __init__(
        self,
        data_dir: Path,
        shard: Asking,
        queries: Callable[[int], Iterable[Asked]] | None,
        processes: Mapping[str, int],
        clock: Clock,
    ) -> None:
        """`processes`: by side. `queries`: those of the log since a time in ms."""
        self._data_dir = data_dir
        self._shard = shard
        self._queries = queries
        self._processes = dict(processes)
        self._clock = clock
        self._heads = Heads(data_dir)
        self._rollups = CatalogFollower(data_dir)
        self._disk = Disk.real(str(data_dir))
        self._metrics_of: dict[str, list[tuple[str, int, int]]] = {}
        self._looking = threading.Lock()

    def __call__(self, since_ms: int) -> Sample:
        """Raises: SluicewayError, OSError."""
        with self._looking:
            return self._look(since_ms)

    def _look(self, since_ms: int) -> Sample:
        asked = {"tenant": DEFAULT_TENANT, "timeout_ms": TIMEOUT_MS}
        usage = self._shard.usage({"timeout_ms": TIMEOUT_MS, "rows_max": METRICS_MAX})
        rollups = of_rollups(self._catalog(), self._metric_bytes)
        directory = look(self._data_dir)
        ledger = self._shard.ledger({**asked, "raw_scan": False})
        at_ms = self._clock.now_ms()
        slices = attribute(directory, usage, self._heads, rollups)
        received = {name: row["received"] for name, row in ledger["tenants"].items()}
        found = {side: process(number) for side, number in self._processes.items()}
        known = {side: one for side, one in found.items() if one is not None}
        readings = Readings(
            received,
            {side: one.cpu_s for side, one in known.items()},
            {side: one.started for side, one in known.items()},
            read_calls(self._data_dir / COST),
        )
        ram_bytes = {side: one.resident_bytes for side, one in known.items()}
        users = self._users(since_ms, at_ms)
        elsewhere = sum(rollups.elsewhere(directory).values())
        return Sample(at_ms, slices, readings, ram_bytes, users, elsewhere)

    def _catalog(self) -> Catalog:
        """The newest catalog; an empty one where it is damaged: its files are unassigned then."""
        try:
            return self._rollups.catalog()
        except Corruption as error:
            log.warning("catalog_not_read", error=str(error))
            return Catalog()

    def _metric_bytes(self, path: str) -> list[tuple[str, int, int]]:
        """What a warm file's metrics take; a file never changes, so it is read once."""
        known = self._metrics_of.get(path)
        if known is None:
            try:
                known = [row[:3] for row in warm_usage(self._disk, path)]
            except (SluicewayError, OSError):
                return []  # gone, damaged, or on an object store
            while len(self._metrics_of) >= WARM_FILES_KNOWN_MAX:
                self._metrics_of.pop(next(iter(self._metrics_of)))
            self._metrics_of[path] = known
        return known

    def _users(self, since_ms: int, until_ms: int) -> list[UserRow]:
        users: dict[tuple[str, str], UserRow] = {}
        since_ms, until_ms = since_ms - LOG_LAG_MS, until_ms - LOG_LAG_MS
        for entry in () if self._queries is None else self._queries(since_ms):
            if not since_ms < entry.time_ms <= until_ms:
                continue
            named = (entry.tenant, entry.key)
            one = UserRow(*named, entry.count, entry.duration_ms, entry.points, entry.bytes)
            users.setdefault(named, UserRow(*named)).add(one)
        return list(users.values())
