"""The hot shard of a signal with everything that keeps it alive: what wiring constructs.

Four threads: the processor applies, the sealer writes what was frozen, the merger merges and
expires, one watches the room that is left. Invariant: what they change on the disk, they change
through the checkpointer, whose order is the manifests'.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.deadletters.aging import Aging
from sluiceway.deadletters.retention import plan_letter_expiry
from sluiceway.errors import BackendUnavailable, Corruption, SluicewayError
from sluiceway.governance.compile import compile_policy, decompile
from sluiceway.governance.policy import Policy
from sluiceway.governance.reading import Reading
from sluiceway.kernels import Disk, Shard
from sluiceway.ledger.statement import Statement
from sluiceway.processor.checkpoint import Checkpointer
from sluiceway.processor.eraser import Erased, Eraser, mergeable
from sluiceway.processor.figures import figures
from sluiceway.processor.guard import Guard
from sluiceway.processor.interface import RecordSource
from sluiceway.processor.own_journal import OwnJournal
from sluiceway.processor.policies import (
    NEW_SERIES,
    POLICIES_MAX,
    encode_policies,
    policies_for,
)
from sluiceway.processor.recovery import load_tier, open_tier, read_tables
from sluiceway.processor.room import RoomWatch
from sluiceway.processor.torn_commit import count_set_aside
from sluiceway.processor.worker import Pace, Worker, unpaced
from sluiceway.tiers.hot import (
    Admission,
    HotConfig,
    part_count,
    plan_expiry,
    plan_hours_expiry,
    plan_merge,
    plan_merge_all,
)
from sluiceway.tiers.manifest import BlockEntry, Deletion, ManifestStore, Matcher, Replay, Version

DIRECTORY = "hot/metrics"
JOURNAL_DIRECTORY = "journal/metrics"
RETRY_S = 1.0
FULL_WAIT_S = 0.005
"""Between two looks at a full buffer that waits for its seal."""
WATCH_S = 1.0
Expiring = Callable[[Sequence[BlockEntry], HotConfig, int], Sequence[BlockEntry]]
"""Which blocks go, at a time (ms)."""


class HotShard:
    """A ShardWorker (processor/interface.py) over one data directory, already locked."""

    def __init__(
        self,
        disk: Disk,
        options: dict[str, Any],
        config: HotConfig,
        clock: Clock,
        series_max: int = 5_000_000,
        directory: str = DIRECTORY,
        pace: Pace = unpaced,
        source: RecordSource | None = None,
    ) -> None:
        """Open or recover: blocks until requests can be taken; `start` loads and replays. `pace`
        is asked before each slice that the processor applies; `source` is where its records come
        from, its own journal unless told.

        Raises: Corruption, BackendUnavailable, OSError.
        """
        self._disk = disk
        self._config = config
        self._clock = clock
        self._log = structlog.get_logger("hot")
        self.manifests = ManifestStore(disk, f"{directory}/manifest", clock)
        journal = options.get("journal_directory", JOURNAL_DIRECTORY)
        self._opened, self._policies = open_tier(
            disk, self.manifests, directory, journal, series_max
        )
        self._files_set_aside = count_set_aside(disk, directory)
        self.shard = Shard(disk, {**options, "journal_directory": journal})
        self._policy_lock = threading.Lock()
        self._admission = Admission("accept")
        self._tables = read_tables(disk, self._opened)
        self._set_tables()
        self._set_policies()
        self._source: RecordSource = source or OwnJournal()
        opened = self._opened
        self._source.open(self.shard, opened.next_sequence, opened.fence, opened.schedule)
        self._checkpointer = Checkpointer(disk, self.shard, self.manifests, directory)
        self._eraser = Eraser(disk, self.shard, self.manifests, self._checkpointer, clock)
        self._worker = Worker(
            self.shard, config, clock, self._snapshot_due, self._parts, self._frozen_now, pace
        )
        self._room = RoomWatch(disk, config, self._parts, self._admit)
        self._loaded = False
        self._stopping = threading.Event()
        self._frozen = threading.Event()
        self._sealed = threading.Condition()
        self._merge_wanted = threading.Event()
        self._merging = threading.Lock()
        self._damaged: set[str] = set()
        self._guard = Guard(self._log)
        self._damage_told = (0, 0)
        self._on_unusable: Callable[[Exception], None] | None = None
        self._expiring: Expiring = plan_expiry
        self._aging = Aging(disk)
        self._letter_ages_ms: Callable[[], Mapping[str, int]] = dict
        self._merges_held = False
        self._threads: list[threading.Thread] = []

    # --- life ---------------------------------------------------------------------------------

    def load(self) -> None:
        """Load registry and blocks: the start of the processor, or of a simulation's `step`s."""
        load_tier(self.shard, self._opened)
        self._loaded = True
        self._judge()

    def start(self, on_unusable: Callable[[Exception], None] | None = None) -> None:
        """Start the threads; loading and replay happen on them. `on_unusable` is called, on one of
        them, when what the manifest names cannot be loaded: nothing is applied or answered then."""
        self._on_unusable = on_unusable
        self._source.start(on_unusable)
        for name, loop in (
            ("processor", self._process),
            ("sealer", self._seal_loop),
            ("merger", self._merge_loop),
            ("room", self._watch_room),
        ):
            thread = threading.Thread(target=loop, name=f"sluiceway-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Seal what is in memory and end the threads; true when the seal was committed in time."""
        self.shard.cancel_merges()
        sealed = self._loaded and self._seal_until(self._durable_next(), timeout_s)
        self._stopping.set()
        self._frozen.set()
        self._merge_wanted.set()
        self.shard.interrupt()
        for thread in self._threads:
            thread.join(max(timeout_s, 1.0))
        self.shard.close()
        return sealed

    def recovered(self) -> bool:
        """Has the replay of what was durable at the start been applied?"""
        until = self._source.replay_until()
        return self._loaded and until is not None and self.shard.sequences()[1] >= until

    def flush(self, merge_all: bool, timeout_s: float = 600.0) -> None:
        """Return when all that was acked before is sealed and durable and, with `merge_all`,
        merged. Blocks. Raises: BackendUnavailable."""
        if not self._seal_until(self._durable_next(), timeout_s):
            raise BackendUnavailable(f"not sealed: {self._guard.failure or 'it takes too long'}")
        if merge_all:
            self.flush_merges()

    def flush_merges(self) -> None:
        """Merge until no two blocks overlap in time. Blocks; raises as a merge does."""
        with self._merging:
            self._expire()
            while self._eraser.step():
                pass
            task = plan_merge_all(mergeable(self.manifests.version), self._config)
            if task is not None:
                self._checkpointer.merge(task)

    def age_letters_by(self, ages_ms: Callable[[], Mapping[str, int]]) -> None:
        """How old dead letters of tenants may get, where less than the policy's days."""
        self._letter_ages_ms = ages_ms

    def expire_by(self, expiring: Expiring) -> None:
        """Blocks go by this from now on, and no longer by their age alone."""
        self._expiring = expiring

    def finish_by(self, erased: Erased) -> None:
        """An order to delete is done only when `erased` tells how many windows it took."""
        self._eraser.finish_by(erased)

    def hold_merges(self, held: bool) -> None:
        """Put merges off, while there are few enough parts."""
        self._merges_held = held

    def cut_by(self, raw_ms: int) -> None:
        """Merges keep apart what is not to go together when raw points are kept so long."""
        self._config = replace(self._config, apart_ms=raw_ms)

    def policy(self) -> tuple[int, Policy]:
        """The version that new records are judged by, 0 without one, and what it says."""
        with self._policy_lock:
            version = self._policies.compiled
            return version, decompile(self._tables[version]) if version else Policy()

    def change_policy(self, policy: Policy, version_min: int = 0) -> int:
        """Judge records received from now on by `policy`; returns its version, the next one but
        at least `version_min`. Durable when it returns, and in force with the next record. Blocks
        for a commit.

        Raises: OSError, BackendUnavailable; the one before goes on then.
        """
        with self._policy_lock:
            before = self.manifests.version
            if len(before.policies) + len(NEW_SERIES) > POLICIES_MAX:
                raise BackendUnavailable("too many policy changes since the last seal")
            newest = max([0, *(table.version for table in before.tables)])
            version = max(newest + 1, version_min)
            table = compile_policy(policy, version)
            sealed = before.policy_version_sealed()
            policies = policies_for(
                self._policies.table, self._policies.series_max, version, sealed
            )
            self._checkpointer.change_policies(policies.table, version, table)
            named = {policy.table for policy in policies.table}
            kept = {number: data for number, data in self._tables.items() if number in named}
            self._policies, self._tables = policies, {**kept, version: table}
            self._set_tables()
            self._set_policies()
            self._judge()
        return version

    def note_replays(self, replays: tuple[Replay, ...], points: int) -> None:
        """Commit replays of dead letters (deadletters/replay.py). Blocks. Raises: OSError,
        BackendUnavailable."""
        self._checkpointer.note_replays(replays, points)

    def delete(
        self,
        tenant: str,
        matchers: tuple[Matcher, ...],
        before_ms: int | None,
        actor: str,
        whole: bool = False,
    ) -> Deletion:
        """Delete points of all that was acked before: durable and hidden from queries when it
        returns, gone from the blocks later. Blocks. Raises: BackendUnavailable, OSError,
        Overloaded."""
        self.flush(False)
        order = self._eraser.order(tenant, matchers, before_ms, actor, whole)
        self._log.info("deletion_ordered", number=order.number, tenant=tenant, actor=actor)
        self._merge_wanted.set()
        return order

    def expire_points(self, tenant: str, before_ms: int) -> Deletion:
        """Points of raw alone that are past the tenant's retention: of all that is sealed, hidden
        from queries when it returns, gone from the blocks later. Blocks for a commit. Raises:
        BackendUnavailable, OSError, Overloaded."""
        order = self._eraser.order(tenant, (), before_ms, "retention", raw_only=True)
        self._merge_wanted.set()
        return order

    # --- one step of each thread, also driven by hand in simulations ---------------------------

    def step(self, wait_ms: int = 0) -> str:
        """Apply one slice of durable records and freeze when a seal is due."""
        return self._worker.step(wait_ms)

    def seal_step(self) -> bool:
        """Seal what is frozen; false where nothing is."""
        if not self._frozen.is_set() or self._stopping.is_set():
            return False
        # Cleared before, not after: the worker may freeze again as soon as the seal is committed,
        # and a wish cleared then would never be heard.
        self._frozen.clear()
        try:
            self._checkpointer.seal()
        except BaseException:
            self._frozen.set()
            raise
        self._merge_wanted.set()
        with self._sealed:
            self._sealed.notify_all()
        self._checkpointer.truncate()
        return True

    def merge_step(self) -> bool:
        """One planned merge; false where none is worth doing."""
        with self._merging:
            self._expire()
            if self._eraser.step():
                return True
            if self._merges_held and self._parts() <= self._config.parts_slow:
                return False
            blocks = mergeable(self.manifests.version)
            task = plan_merge(blocks, self._config, self._damaged)
            if task is not None:
                try:
                    self._checkpointer.merge(task)
                except Corruption:
                    # One of them is damaged: it stays for queries of what is whole in it.
                    self._damaged.update(block.path for block in task.inputs)
                    raise
            return task is not None

    # --- threads --------------------------------------------------------------------------------

    def _process(self) -> None:
        if not self._guard.run(self._load_once):
            return
        while not self._stopping.is_set():
            if not self._guard.run(self._apply_step):
                self._stopping.wait(RETRY_S)

    def _apply_step(self) -> bool:
        if self._worker.step() == "full":
            self._stopping.wait(FULL_WAIT_S)
        return True

    def _load_once(self) -> bool:
        try:
            if not self._loaded:
                self.load()
            else:
                self._judge()  # the last try got no further
        except (SluicewayError, OSError, MemoryError) as error:
            if self._on_unusable is not None:
                self._on_unusable(error)
            raise
        return True

    def _seal_loop(self) -> None:
        while not self._stopping.is_set():
            self._frozen.wait()
            if not self._guard.run(self.seal_step):
                self._stopping.wait(RETRY_S)

    def _merge_loop(self) -> None:
        while not self._stopping.is_set():
            self._merge_wanted.wait(WATCH_S)
            self._merge_wanted.clear()
            if self._loaded and not self._stopping.is_set():
                self._guard.run(self._tell_losses)
                while self._guard.run(self.merge_step) and not self._stopping.is_set():
                    pass

    def _watch_room(self) -> None:
        self._room.run(self._stopping, self._guard.failed)

    def _tell_losses(self) -> bool:
        journal = self.shard.stats()["journal"]
        lost, undecided = journal["quarantined_records"], journal["undecided_records"]
        if lost > self._damage_told[0]:
            self._log.error("journal_damaged", records_lost=lost)
        if undecided > self._damage_told[1]:
            self._log.warning("journal_undecided", records_torn_or_lost=undecided)
        self._damage_told = (lost, undecided)
        return True

    # --- helpers --------------------------------------------------------------------------------

    def _admit(self, admission: Admission) -> None:
        with self._policy_lock:
            self._admission = admission
            self._set_policies()
            self._judge()

    def _set_tables(self) -> None:
        self.shard.set_tables([table.decode() for table in self._tables.values()])

    def _set_policies(self) -> None:
        current = self._policies.version(self._admission.new_series)
        self.shard.set_policies(encode_policies(self._policies), current, self._admission.refusing)

    def _judge(self) -> None:
        """From now on by the version in force, where records do not name one. Raises: OSError."""
        if self._loaded:
            current = self._policies.version(self._admission.new_series)
            self._source.judge_by(current, self._checkpointer.schedule)

    def _durable_next(self) -> int:
        return self.shard.sequences()[0]

    def _seal_until(self, sequence: int, timeout_s: float) -> bool:
        """Have everything before `sequence` sealed; false when that takes longer."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        with self._sealed:
            while self.manifests.version.next_sequence < sequence:
                if self._clock.monotonic_s() >= deadline_s:
                    return False
                self._worker.ask_seal(sequence)
                self._sealed.wait(0.05)
        self._worker.ask_seal(None)
        return True

    def _expire(self) -> None:
        blocks = self.manifests.version.blocks
        now_ms = self._clock.now_ms()
        self._checkpointer.expire(self._expiring(blocks, self._config, now_ms))
        days = self.policy()[1].dead_letters.days
        letters = self.manifests.version.letters
        self._checkpointer.expire_letters(plan_letter_expiry(letters, days, now_ms))
        letters = self.manifests.version.letters
        for file, rest in self._aging.due(letters, self._letter_ages_ms(), now_ms):
            self._checkpointer.purge(file, rest)
        config, hours = self._config, self.manifests.version.hours
        gone = plan_hours_expiry(hours, config.whatif_days_max, config.whatif_bytes_max)
        self._checkpointer.expire_hours(gone)

    def _snapshot_due(self) -> bool:
        return len(self.manifests.version.states) + 1 >= self._config.state_files_max

    def _parts(self) -> int:
        return part_count(self.manifests.version.blocks, self._config)

    def _frozen_now(self) -> None:
        self._frozen.set()

    # --- figures --------------------------------------------------------------------------------

    def statement(self, raw_scan: bool = False) -> Statement:
        """The ledger: flow, movements and stock; `raw_scan` counts every row on disk."""
        return msgspec.json.decode(self.shard.ledger(raw_scan), type=Statement)

    def governance(self) -> Reading:
        """What the meters of the policy in force count, and all tallies."""
        return msgspec.json.decode(self.shard.governance(), type=Reading)

    def knows_tenant(self, tenant: str) -> bool:
        """Has it series, with points or without, that no deletion took?"""
        return self.shard.knows_tenant(tenant)

    def count_ordered(self, tenant: str, matchers: tuple[Matcher, ...]) -> int:
        """Series that a deletion would take. Raises: TenantFault (a regular expression)."""
        return self.shard.count_ordered(tenant, msgspec.json.encode(matchers).decode())

    def version(self) -> Version:
        return self.manifests.version

    def stats(self) -> dict[str, Any]:
        """Figures for /metrics and `sluiceway status`."""
        loaded = self._loaded  # before the statement: it may be loaded meanwhile
        told, letters = figures(self.shard.stats(), self.statement()), self.version().letters
        if not loaded:  # the ledger is there before the blocks are: nothing is missing
            told["ledger_gaps"] = dict.fromkeys(told["ledger_gaps"], 0)
        return told | {
            "quarantined_files": self._files_set_aside,
            "series_max": self._policies.series_max,
            "seals_total": self._checkpointer.seals,
            "merges_total": self._checkpointer.merges,
            "dead_letters": sum(file.letters for file in letters),
            "dead_letter_bytes": sum(file.bytes for file in letters),
            "recorded_hours": sum(file.hours for file in self.version().hours),
            "recorded_hour_bytes": sum(file.bytes for file in self.version().hours),
            "processor_errors_total": self._guard.errors,
            "deletions_pending": len(self.version().pending()),
            "failure": self._guard.failure,
        }
