"""The directory over the snapshot file: what gateway, processor and query look tenants up in.

Invariant: a lookup reads one immutable state; the thread that takes a new snapshot swaps it in
whole. A snapshot that cannot be read leaves what was there.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import Corruption
from sluiceway.tenants.keys import by_prefix, find
from sluiceway.tenants.limits import UNLIMITED, Limits, effective, holds_until_ms
from sluiceway.tenants.model import UNLIMITED_PLAN, Key, Plan, Principal, Snapshot, Status
from sluiceway.tenants.plans import first_snapshot
from sluiceway.tenants.snapshot import decode

LOOK_S = 0.5
"""A change reaches every consumer within twice this."""
Stamp = tuple[int, int, int]
log = structlog.get_logger()


@dataclass(frozen=True)
class _Settled:
    """A tenant's limits, and until when they stay so by themselves."""

    limits: Limits
    until_ms: int | None


@dataclass(frozen=True)
class _State:
    """One snapshot, made ready for lookups. `settled` only caches."""

    snapshot: Snapshot
    keys: dict[str, list[Key]]
    settled: dict[str, _Settled] = field(default_factory=dict)


class SnapshotDirectory:
    """A TenantDirectory. Reads the snapshot when it is made, then on a thread once started."""

    def __init__(self, file: Path, database: Path | None, clock: Clock) -> None:
        """`database`: its file, which is not there before the first act; None: it is elsewhere,
        and what it holds is not known before the first snapshot."""
        self._file = file
        self._database = database
        self._clock = clock
        self._state = _State(first_snapshot(), {})
        self.version = 0
        self._looking = threading.Lock()
        self._taken: Stamp | None = None
        self._refused: Stamp | None = None
        self._told: list[Callable[[Snapshot], None]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.look()

    # TenantDirectory
    @property
    def loaded(self) -> bool:
        there = self._database is None or self._database.exists()
        return self.version > 0 or not there

    def authenticate(self, presented: str) -> Principal | None:
        return find(presented, self._state.keys)

    def status(self, tenant: str) -> Status:
        record = self._state.snapshot.tenants.get(tenant)
        return "active" if record is None else record.status

    def limits(self, tenant: str) -> Limits:
        state = self._state
        settled = state.settled.get(tenant)
        if settled is None:
            return self._settle(state, tenant)
        if settled.until_ms is not None and self._clock.now_ms() >= settled.until_ms:
            return self._settle(state, tenant)
        return settled.limits

    def plan(self, tenant: str) -> Plan:
        snapshot = self._state.snapshot
        record = snapshot.tenants.get(tenant)
        return snapshot.plans[UNLIMITED_PLAN if record is None else record.plan]

    def snapshot(self) -> Snapshot:
        return self._state.snapshot

    def watch(self, told: Callable[[Snapshot], None]) -> None:
        self._told.append(told)

    def _settle(self, state: _State, tenant: str) -> Limits:
        record = state.snapshot.tenants.get(tenant)
        if record is None:
            return UNLIMITED
        now_ms = self._clock.now_ms()
        plan = state.snapshot.plans[record.plan].limits
        limits = effective(plan, record.limits, record.overrides, now_ms)
        state.settled[tenant] = _Settled(limits, holds_until_ms(record.overrides, now_ms))
        return limits

    # the file
    def look(self) -> bool:
        """Take the file if it changed. Blocks on the disk."""
        with self._looking:
            return self._look()

    def _look(self) -> bool:
        try:
            status = self._file.stat()
        except OSError:
            return False
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp in (self._taken, self._refused):
            return False
        try:
            snapshot = decode(self._file.read_bytes())
        except (OSError, Corruption) as error:
            self._refused = stamp
            log.error("tenants_refused", error=str(error))
            return False
        keys = by_prefix(key for tenant in snapshot.tenants.values() for key in tenant.keys)
        self._state = _State(snapshot, keys)
        self.version += 1  # behind the state: who sees it sees that state, or a later one
        self._taken, self._refused = stamp, None
        for told in self._told:
            try:
                told(snapshot)
            except Exception:
                log.exception("tenants_not_taken")
        return True

    def start(self) -> None:
        self._thread = threading.Thread(target=self._watch, name="tenants", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_S):
            if self.look():
                log.info("tenants_taken", revision=self._state.snapshot.revision)
