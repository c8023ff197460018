"""The rollup of one data directory: a state machine with `step`, and the thread that drives it.

Invariant: one task at a time, planned anew out of what is committed; what fails is told, left
alone for a while and does not hold up the others. Time comes from the clock that was passed in.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence, Set
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import (
    BackendUnavailable,
    Cancelled,
    Corruption,
    Overloaded,
    SluicewayError,
)
from sluiceway.kernels import Disk
from sluiceway.rollup import raw
from sluiceway.rollup.boundary import Boundary
from sluiceway.rollup.changes import Overtaken
from sluiceway.rollup.config import CONTINUOUS, TiersConfig
from sluiceway.rollup.cron import parse_cron
from sluiceway.rollup.damage import DamageMet
from sluiceway.rollup.erasing import Erasing
from sluiceway.rollup.handoff import Handoff
from sluiceway.rollup.interface import (
    ColdEraser,
    ColdMaker,
    ColdMerger,
    HotTier,
    Merger,
    RollKernel,
)
from sluiceway.rollup.keeping import Keeping
from sluiceway.rollup.offload import ObjectsStatus, RemoteTier
from sluiceway.rollup.schedule import (
    TenantView,
    World,
    closed_ms,
    deletions,
    files_by_tenant,
    first_rolls,
    made_before,
    plan,
    unlinks,
    uploads,
)
from sluiceway.rollup.status import Status, TenantStatus, tenant_status
from sluiceway.rollup.tasks import LetRawGo, Roll, Task
from sluiceway.tenants.limits import Limits
from sluiceway.tenants.model import Snapshot
from sluiceway.tiers.catalog import Catalog, Change, TierFile, owned
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.tiers.damage import Notes
from sluiceway.tiers.hot import (
    DISK_SHARE_ALL,
    DISK_SHARE_SERIES,
    HotConfig,
    plan_expiry,
    runs_of_days,
)
from sluiceway.tiers.manifest import BlockEntry, Deletion
from sluiceway.tiers.paths import DAY_MS, HOUR_MS, day_of_end_ms

LOOK_S = 15.0
"""Between two looks for work."""
FAILED_WAIT_MS = 60_000
"""Before a task that failed is tried again."""
FAILED_MAX = 1_000
JOB_RETRY_S = 5.0
Job = Callable[[tuple[TenantView, ...], World], Any]
"""What is done on the rollup's thread between two tasks; who waits for it bounds their number."""


def nothing_to_bring(files: Sequence[TierFile]) -> None:
    """All files are here."""


class Rollup:
    """Made after the hot tier was opened and before it is started: `attach` tells it what is rolled
    before the first record is applied."""

    def __init__(
        self,
        disk: Disk,
        kernel: RollKernel,
        hot: HotTier,
        store: CatalogStore,
        tenants: Callable[[], Snapshot],
        limits: Callable[[str], Limits],
        config: TiersConfig,
        clock: Clock,
        merge: Merger | None = None,
        make_cold: ColdMaker | None = None,
        boundary: Boundary | None = None,
        merge_cold: ColdMerger | None = None,
        erase_cold: ColdEraser | None = None,
        remote: RemoteTier | None = None,
        disk_share: Callable[[], float] = lambda: 0.0,
        broken: str = "",
        secured: Callable[[], Catalog] | None = None,
        retention_ms: int = 0,
    ) -> None:
        """`broken`: why the catalog cannot be read; nothing is done and no raw point goes then.
        `secured`: the catalog that whoever takes the shard over would have; what it does not say
        of raw points, they do not go by. `retention_ms`: of raw points of tenants without tiers, at
        most; 0 is for ever."""
        self._broken = broken
        self._disk_share = disk_share
        self._kernel = kernel
        self._hot = hot
        self._store = store
        self._tenants = tenants
        self._limits = limits
        self._config = config
        self._clock = clock
        kept = (kernel, hot, tenants, limits, self._with_windows, config, clock, retention_ms)
        self.keeping = Keeping(*kept)
        self._merges, self._makes_cold = merge is not None, make_cold is not None
        self._compacts = merge_cold is not None
        self._boundary = boundary
        erasing = None
        if merge is not None and erase_cold is not None:
            bring = remote.bring if remote is not None else nothing_to_bring
            erasing = Erasing(disk, clock, self._orders, merge, erase_cold, bring)
        self._erases, self._told_order = erasing is not None, 0
        self._handoff = Handoff(
            disk, kernel, store, merge, make_cold, clock, boundary, merge_cold, erasing, remote
        )
        self._remote = remote
        self._secured = secured or (lambda: store.catalog)
        self._cron = None if config.schedule == CONTINUOUS else parse_cron(config.schedule)
        self._log = structlog.get_logger("rollup")
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stand_back: Callable[[bool], None] = lambda pressed: None
        self._thread: threading.Thread | None = None
        self._looked_ms = clock.now_ms()
        self._begun = self._cron is None
        self._asked = False
        self._rerolled_ms: dict[tuple[str, int], int] = {}
        self._failed_ms: dict[Task, int] = {}
        self._let_go_ms: dict[str, tuple[int, float]] = {}
        """By tenant: raw points up to here may go, from this moment (monotonic) on."""
        self._may_go: frozenset[str] = frozenset()
        self._tiered: frozenset[str] = frozenset()
        self._replayed = False
        self._running: Task | None = None
        self._damage = DamageMet()
        self._notes, self._damaged_files, self._swept_ms = Notes(disk), 0, 0
        self._jobs: deque[tuple[Job, Future[Any]]] = deque()
        self._last_error = broken
        self._counts: Counter[str] = Counter()
        self._busy_s = 0.0

    @property
    def store(self) -> CatalogStore:
        return self._store

    @property
    def broken(self) -> str:
        """Why the catalog cannot be read; empty: it can."""
        return self._broken

    @property
    def remote(self) -> RemoteTier | None:
        """The one that knows which local copies there are: for jobs on the rollup's thread."""
        return self._remote

    # --- life ---------------------------------------------------------------------------------

    def attach(self) -> None:
        """Tell the shard what is rolled, and take over which raw blocks go."""
        for tenant, marks in self._store.catalog.rolled_until_ms.items():
            self._kernel.watch_coverage(tenant, marks.warm)
        if not self._broken:
            self._look_at_tenants()
            if self._remote is not None:
                self._remote.settle_in(self._store.catalog)
        self._hot.expire_by(self._expiring)
        self._hot.finish_by(self.erased)

    def start(self, stand_back: Callable[[bool], None] = lambda pressed: None) -> None:
        """Start the thread. `stand_back` is called on it: how far its work stands back from acks is
        another matter while the disk is pressed, and rolling is what makes room."""
        self._stand_back = stand_back
        self._thread = threading.Thread(target=self._run, name="sluiceway-rollup", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a task that runs is cancelled with the shard's merges."""
        self._stopping.set()
        self._wake.set()
        self._kernel.cancel_merges()
        if self._thread is not None:
            self._thread.join()
        while self._jobs:
            self._jobs.popleft()[1].cancel()

    def run_now(self) -> None:
        """Do all that is due, whatever the schedule says."""
        self._asked = True
        self._wake.set()

    def pause(self, paused: bool) -> None:
        """Durable. A task that runs is ended first. Blocks for a commit. Raises: OSError."""
        if self._broken:
            raise BackendUnavailable(f"the catalog cannot be read: {self._broken}")
        if self._store.catalog.paused != paused:
            self._store.commit(Change("pause" if paused else "resume", paused=paused))
        self._wake.set()

    def erased(self, order: Deletion) -> int | None:
        """How many windows an order took; None while files that may hold what it takes count, or
        are being made. On any thread."""
        if order.raw_only:
            return 0
        seen = self._handoff.orders_seen()
        catalog = self._store.catalog
        if self._broken or (seen is not None and seen < order.number):
            return None
        waits = order.whole or self._erases
        if waits and any(made_before(file, order) for file in catalog.of(order.tenant)):
            if order.number > self._told_order:
                self._told_order = order.number
                self._wake.set()
            return None
        return sum(one.windows for one in catalog.erased if one.order == order.number)

    def between_tasks(self, job: Job, timeout_s: float) -> Any:
        """Have `job` done on the rollup's thread and return what it returns; any thread, blocks.
        Raises: what it raises; Overloaded where that takes too long or the rollup ends."""
        if self._broken:
            raise BackendUnavailable(f"the catalog cannot be read: {self._broken}")
        if self._stopping.is_set():
            raise Overloaded(JOB_RETRY_S, "the rollup ends")
        answer: Future[Any] = Future()
        self._jobs.append((job, answer))
        self._wake.set()
        try:
            return answer.result(timeout_s)
        except FutureTimeout:
            if answer.cancel():
                raise Overloaded(JOB_RETRY_S, "the rollup is busy") from None
            return answer.result()  # It runs: half of it would be no act.
        except CancelledError:
            raise Overloaded(JOB_RETRY_S, "the rollup ends") from None

    # --- one step -------------------------------------------------------------------------------

    def step(self) -> bool:
        """Carry one task out; false where none is due. Blocks while it runs. Raises nothing but
        Cancelled."""
        if self._broken or not self._hot.recovered():
            return False
        if not self._replayed:
            self._forget_replayed()
        views = self._look_at_tenants()
        world = self._world(views)
        self._stand_back(world.pressed)
        self._let_raw_go(world)
        behind = any(any(first_rolls(view, world, self._config)) for view in views)
        self._hot.hold_merges(world.pressed and behind)
        self._look_around(world)
        avoided = self._avoided(world.now_ms)
        # What was deleted goes whatever the schedule says.
        ordered = next((task for task in deletions(world) if task not in avoided), None)
        if ordered is not None:
            self._carry_out(ordered, world.now_ms)
            return True
        if self._do_job(views, world):
            return True
        if world.catalog.paused and not self._asked:
            return False
        if not self._due(world.now_ms):
            return False
        # Where room is wanted, what is rolled already makes it before more is rolled.
        task = self._raw_task(world, avoided) if world.pressed else None
        if task is None and self._room_is_coming(world):
            task = next((one for one in unlinks(world, self._config) if one not in avoided), None)
            if task is None:
                return False
        task = task or plan(world, self._config, avoided) or self._raw_task(world, avoided)
        if task is None:
            self._begun, self._asked = self._cron is None, False
            return False
        self._carry_out(task, world.now_ms)
        return True

    def _do_job(self, views: tuple[TenantView, ...], world: World) -> bool:
        """Do what waits for this thread; false where nothing does."""
        if not self._jobs:
            return False
        job, answer = self._jobs.popleft()
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(job(views, world))
            except BaseException as error:
                answer.set_exception(error)
        return True

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                worked = self.step()
            except Cancelled:
                worked = False
            except Exception as error:  # a bug of ours too: told and alarmed, tried again later
                self._fail(None, error)
                worked = False
            if not worked:
                self._wake.wait(LOOK_S)
                self._wake.clear()

    def _carry_out(self, task: Task, now_ms: int) -> None:
        planned, task = task, self._damage.softened(task)
        self._running, began_s = task, self._clock.monotonic_s()
        try:
            done = self._handoff.carry_out(task)
        except Cancelled:
            raise
        except Overtaken:
            return
        except (SluicewayError, OSError) as error:
            again_at_once = isinstance(error, Corruption) and self._damage.met(planned, error)
            self._fail(task, error, None if again_at_once else planned)
            return
        finally:
            self._running = None
            self._busy_s += self._clock.monotonic_s() - began_s
        self._counts[type(task).__name__] += 1
        if isinstance(task, Roll):
            self._damage.over(planned)
            self._counts["lost_points"] += done.lost_points
            self._counts["points"] += done.points
            self._counts["windows"] += done.windows
            if task.again:
                key = (task.tenant, day_of_end_ms(task.until_ms))
                self._rerolled_ms[key] = now_ms

    def _fail(self, task: Task | None, error: Exception, avoided: Task | None = None) -> None:
        self._counts["failures"] += 1
        self._last_error = f"{task}: {error}" if task else str(error)
        self._log.error("rollup_failed", task=str(task), error=str(error))
        if avoided is not None:
            self._failed_ms[avoided] = self._clock.now_ms()

    def _avoided(self, now_ms: int) -> set[Task]:
        # A moment that lies ahead is of before the clock was set back: nobody waits for it.
        recent = {t: ms for t, ms in self._failed_ms.items() if 0 <= now_ms - ms < FAILED_WAIT_MS}
        self._failed_ms = dict(list(recent.items())[-FAILED_MAX:])
        return set(self._failed_ms)

    def _due(self, now_ms: int) -> bool:
        if self._cron is not None and self._cron.begins_between(self._looked_ms, now_ms):
            self._begun = True
        self._looked_ms = now_ms
        return self._begun or self._asked

    def _forget_replayed(self) -> None:
        """The replay has marked hours by records that their files have seen: they are clean."""
        self._replayed = True
        catalog = self._store.catalog
        for tenant in catalog.rolled_until_ms:
            dirty = self._kernel.coverage(tenant)[0]
            if dirty:
                until_ms = dirty[-1] + HOUR_MS
                self._handoff.mark_after(catalog, tenant, dirty[0], until_ms)
                for piece in owned(catalog.of(tenant, "warm"), dirty[0], until_ms):
                    for start, end in piece.ranges_ms:
                        through = piece.file.through_sequence
                        self._kernel.forget_dirty(tenant, start, end, through)

    def _look_around(self, world: World) -> None:
        """How many files are noted as damaged, and wait for the store; as often as for work."""
        if 0 <= world.now_ms - self._swept_ms < LOOK_S * 1000:
            return
        self._swept_ms = world.now_ms
        by_path = {file.path: file for file in world.catalog.files}
        self._damaged_files = self._notes.sweep(set(by_path))
        if self._remote is not None:
            files = files_by_tenant(world.catalog)
            tasks = [
                one for view in world.tenants for one in uploads(view, world, files[view.name])
            ]
            now_s = self._clock.monotonic_s()
            self._remote.look([by_path[task.path] for task in tasks], now_s)

    def _objects(self) -> ObjectsStatus | None:
        return None if self._remote is None else self._remote.status(self._clock.monotonic_s())

    def _orders(self) -> tuple[Deletion, ...]:
        """Those that take windows, too."""
        return tuple(order for order in self._hot.version().deletions if not order.raw_only)

    # --- what it goes by ------------------------------------------------------------------------

    def _look_at_tenants(self) -> tuple[TenantView, ...]:
        ages = self.keeping.look()
        self._tiered = frozenset(ages.tiered)
        return tuple(
            TenantView(name, retention, tuple(self._kernel.coverage(name)[0]))
            for name, retention in ages.tiered.items()
        )

    def _with_windows(self) -> Collection[str]:
        return self._store.catalog.rolled_until_ms

    def _world(self, views: tuple[TenantView, ...]) -> World:
        # The buffer first: what is sealed meanwhile is in the version.
        buffered = self._kernel.buffered_range_ms()
        version = self._hot.version()
        runs = runs_of_days(version.blocks)
        spans = [(first * DAY_MS, (last + 1) * DAY_MS - 1) for first, last in runs]
        if buffered is not None:
            spans.append(buffered)
        now_ms = self._clock.now_ms()
        day_ms = now_ms - DAY_MS
        self._rerolled_ms = {key: ms for key, ms in self._rerolled_ms.items() if ms > day_ms}
        return World(
            catalog=self._store.catalog,
            now_ms=now_ms,
            tenants=views,
            spans_ms=tuple(sorted(spans)),
            rerolled_ms=self._rerolled_ms,
            deletions=tuple(o for o in self._orders() if o.whole or self._erases),
            pressed=self._disk_share() >= DISK_SHARE_SERIES,
            stripped=self._stripped(views),
            merges=self._merges,
            makes_cold=self._makes_cold,
            remote=self._remote is not None,
            unplaced=self._unplaced(),
            compacts=self._compacts,
        )

    def _unplaced(self) -> frozenset[str] | None:
        if self._remote is None or self._remote.term is None:
            return None
        return frozenset(file.path for file in self._remote.unplaced(self._store.catalog.files))

    def _stripped(self, views: tuple[TenantView, ...]) -> frozenset[str]:
        if self._boundary is None:
            return frozenset()
        return self._boundary.stripped(view.name for view in views)

    # --- raw points -----------------------------------------------------------------------------

    def _raw_task(self, world: World, avoided: Set[Task]) -> Task | None:
        """Say that raw points go."""
        if not world.tenants:
            return None
        blocks = self._hot.version().blocks
        tenants_of = self.keeping.tenants_of(blocks)
        limits = raw.limits_ms(world, self._config)
        horizon = raw.horizon_ms(world, blocks, tenants_of, limits)
        shared = raw.shared_ms(world, blocks, tenants_of, self._config)
        horizon |= {name: max(ms, horizon.get(name, 0)) for name, ms in shared.items()}
        task = LetRawGo(tuple(horizon.items()))
        return task if horizon and task not in avoided else None

    def _room_is_coming(self, world: World) -> bool:
        """Hardly anything is left, and raw points only wait for their grace: what rolling would
        write meanwhile could take the room that the commit needs which lets them go."""
        if not world.pressed or self._disk_share() < DISK_SHARE_ALL:
            return False
        gone = {name: world.catalog.raw_from(name) for name in self._tiered}
        return bool(raw.superfluous(self._hot.version().blocks, self.keeping.known, gone))

    def _let_raw_go(self, world: World) -> None:
        """Blocks before the horizon that the catalog has named for longer than the grace, and that
        whoever takes the shard over would know of."""
        now_s, past, secured = self._clock.monotonic_s(), {}, self._secured()
        for name in self._tiered:
            from_ms = min(world.catalog.raw_from(name), secured.raw_from(name))
            known = self._let_go_ms.get(name)
            if known is None or known[0] != from_ms:
                self._let_go_ms[name] = known = (from_ms, now_s)
            if now_s - known[1] >= self._config.grace_s:
                past[name] = from_ms
        blocks = self._hot.version().blocks
        gone = raw.superfluous(blocks, self.keeping.known, past)
        self.keeping.past = past
        self._may_go = frozenset(block.path for block in gone)

    def _expiring(
        self, blocks: Sequence[BlockEntry], config: HotConfig, now_ms: int
    ) -> list[BlockEntry]:
        """What goes: blocks of tenants without tiers by their age, others once they may."""
        if self._broken:
            return []
        may_go, tiered = self._may_go, self._tiered
        aged = {block.path for block in plan_expiry(blocks, config, now_ms)}
        whole = {block.path for block in self.keeping.whole(blocks)}
        if not tiered:
            return [block for block in blocks if block.path in aged | whole]
        tenants_of = self.keeping.tenants_of(blocks)

        def without_tiers(path: str) -> bool:
            return path in tenants_of and tiered.isdisjoint(tenants_of[path])

        return [
            block
            for block in blocks
            if block.path in may_go | whole or (block.path in aged and without_tiers(block.path))
        ]

    # --- figures --------------------------------------------------------------------------------

    def status(self) -> Status:
        """Everything that people ask of it. Cheap enough for a page."""
        catalog, now_ms = self._store.catalog, self._clock.now_ms()
        closed = closed_ms(now_ms, self._config)
        runs = runs_of_days(self._hot.version().blocks)
        buffered = self._kernel.buffered_range_ms()
        first = min(
            [*(first * DAY_MS for first, _ in runs[:1]), *(buffered or ())[:1]], default=closed
        )
        files = files_by_tenant(catalog)
        names = sorted({*self._tiered, *catalog.rolled_until_ms})
        tenants: list[TenantStatus] = [
            tenant_status(catalog, name, files[name], day_of_end_ms(first), closed, dirty)
            for name in names
            for dirty in [len(self._kernel.coverage(name)[0])]
        ]
        limits = {name: catalog.rolled(name).warm for name in self._tiered}
        held = raw.holders(self._hot.version().blocks, self.keeping.known, limits)
        counts = self._counts
        return Status(
            tiers_on=sorted(self._tiered),
            paused=catalog.paused,
            schedule=self._config.schedule,
            running=None if self._running is None else str(self._running),
            lag_s=max(
                (tenant.lag_s for tenant in tenants if tenant.tenant in self._tiered), default=0.0
            ),
            units_total=counts["Roll"],
            merges_total=counts["Merge"],
            cold_units_total=counts["MakeCold"],
            cold_months_total=counts["Compact"],
            points_total=counts["points"],
            windows_total=counts["windows"],
            failures_total=counts["failures"],
            lost_points_total=counts["lost_points"],
            busy_s_total=round(self._busy_s, 3),
            last_error=self._last_error,
            catalog_number=catalog.number,
            grace_bytes=sum(held.bytes for held in catalog.grace),
            raw_held_by=held,
            tenants=tenants,
            objects=self._objects(),
        )

    def figures(self) -> dict[str, Any]:
        """Figures for /metrics and alerts."""
        status = self.status()
        warm = sum(tenant.warm_bytes for tenant in status.tenants)
        cold = sum(tenant.cold_bytes for tenant in status.tenants)
        objects = status.objects
        return {
            "tier_objects": None if objects is None else msgspec.to_builtins(objects),
            "rollup_lag_seconds": status.lag_s if status.tiers_on else 0.0,
            "rollup_paused": int(status.paused),
            "rollup_units_total": status.units_total,
            "rollup_points_total": status.points_total,
            "rollup_windows_total": status.windows_total,
            "rollup_failures_total": status.failures_total,
            "rollup_lost_points_total": status.lost_points_total,
            "tier_files_damaged": self._damaged_files,
            "tier_objects_failing": int(bool(objects and objects.error)),
            "tier_objects_waiting_bytes": objects.waiting_bytes if objects else 0,
            "tier_objects_stalled_seconds": objects.stalled_s if objects else 0,
            "rollup_busy_seconds_total": status.busy_s_total,
            "warm_bytes": warm,
            "cold_bytes": cold,
            "tier_grace_bytes": status.grace_bytes,
        }
