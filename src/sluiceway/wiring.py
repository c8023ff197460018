"""What is built from what: the write side of `sluiceway serve`; `wiring_read.py` has the read side.

Only these files name backends. Invariant: the order of opening is the order of dependence, and
closing is its reverse. How a part works stands in its own module; what a process is besides its
parts (signals, directories, budgets, the drain) stands in `serve/`.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from sluiceway.alerts.evaluate import AlertWatch
from sluiceway.alerts.explosions import Explosions
from sluiceway.alerts.notify import Notifier
from sluiceway.alerts.state import AlertBook
from sluiceway.clock import Clock, SystemClock, jitter
from sluiceway.config import Config, split_address
from sluiceway.cost.call_files import CallKeeper
from sluiceway.cost.calls import Calls, away, crossings
from sluiceway.cost.files import CostFiles
from sluiceway.cost.spending import spending
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.unreadable import BodyLimits, UnreadableBodies
from sluiceway.errors import Corruption
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.interface import WriteShard
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.lanes import RefusalOf, nobody_refused
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.quota.embedded import EmbeddedQuotaLimiter, QuotaConfig
from sluiceway.gateway.receive import Receiver
from sluiceway.gateway.server import TlsFiles, http_server, listen
from sluiceway.gateway.volumes import VolumeWatch
from sluiceway.governance.plans import letter_ages_ms
from sluiceway.journal.binding import refuse_foreign
from sluiceway.journal.owners import FORMAT_VERSION as OWNERS_VERSION
from sluiceway.journal.owners import Owner
from sluiceway.kernels import Disk, EvaluateServer, ShardClient
from sluiceway.processor.deletions import Deletions
from sluiceway.processor.hot_shard import HotShard
from sluiceway.processor.policy_follower import PolicyFollower
from sluiceway.processor.worker import Pace, unpaced
from sluiceway.rollup.boundary import Boundary
from sluiceway.rollup.cold import ColdMonths, ColdObjects, ErasedCold
from sluiceway.rollup.imports import Imports
from sluiceway.rollup.letting_go import LettingGo
from sluiceway.rollup.merging import WarmMerger, WarmStripper
from sluiceway.rollup.worker import Rollup
from sluiceway.serve import budget
from sluiceway.serve.alert_paths import AlertPaths, explaining
from sluiceway.serve.budget_figures import budget_look
from sluiceway.serve.deletion_paths import DeletionPaths
from sluiceway.serve.directory import (
    COST,
    UNREADABLE,
    open_disk,
    socket_directory,
)
from sluiceway.serve.import_paths import ImportPaths
from sluiceway.serve.letter_paths import LetterPaths
from sluiceway.serve.life import Life, Reloadable
from sluiceway.serve.links import open_gate
from sluiceway.serve.logs import set_up_logs
from sluiceway.serve.own_paths import OwnPaths
from sluiceway.serve.priority import lane_behind, start_behind
from sluiceway.serve.pulse import Beat, silent
from sluiceway.serve.read_process import ReadProcess
from sluiceway.serve.rollup_paths import RollupPaths
from sluiceway.serve.shard_link import ShardGate
from sluiceway.serve.succession import Succession
from sluiceway.services.culprits import Culprits
from sluiceway.services.first_writers import PLACE, FirstWriters
from sluiceway.services.offsite.follower import Offsite
from sluiceway.services.replays import Replays
from sluiceway.telemetry import Metrics
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.limits import WriteLimits
from sluiceway.tenants.model import Snapshot
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.wiring_offsite import (
    cuts_of,
    follow_shard,
    objects_place,
    open_offsite,
    remote_tier,
)
from sluiceway.wiring_read import open_directory

if TYPE_CHECKING:
    from sluiceway.journal.kafka.log import KafkaLog

SWITCH_INTERVAL_S = 0.0005
READ_CONNECTIONS_SPARE = 32
"""Of the read side, beside those that hand requests on: for readiness and metrics."""
READ_SIDE_MAIN = """
from sluiceway.serve.quick_start import quick_start
quick_start()
from sluiceway.serve.child import run_child
from sluiceway.wiring_read import read_side
run_child(read_side)
"""
READ_SIDE = (sys.executable, "-c", READ_SIDE_MAIN)


async def write_side(
    config: Config, clock: Clock | None = None, pace: Pace = unpaced, beat: Beat = silent
) -> None:
    """Gateway, journal, processor, hot shard; parent of the read side. Serves until told to stop.

    Raises: OSError, BackendUnavailable, Corruption.
    """
    clock, metrics = clock or SystemClock(), Metrics()
    life = Life(config, clock, metrics, beat)
    metrics.set("sluiceway_process_start_seconds", clock.now_ms() / 1000, ("write",))
    metrics.set("sluiceway_memory_bytes_max", budget.write_memory_bytes(config), ("write",))
    tenants = open_directory(config.tenants_place(), config.tenants_url, clock)
    keyring = Keyring(config.key_file() if config.auth == "keys" else None, tenants, clock)
    tls = tls_files(config)
    async with contextlib.AsyncExitStack() as stack:
        # The public address and the directory's lock, before anything is written.
        listener = stack.enter_context(listen(*split_address(config.http)))
        disk = open_disk(config.data_dir)
        sockets = stack.enter_context(socket_directory(config.data_dir))

        # The read side: started first, the two take their time side by side.
        proxy = ReadProxy(str(sockets / "read.sock"), config.gateway)
        stack.callback(proxy.close)
        read = ReadProcess(READ_SIDE, read_settings(config, sockets), proxy, metrics)
        read.start()
        stack.push_async_callback(read.stop)

        # The shard, with its journal and tier: acks are possible, the replay goes on behind.
        disk_bytes_max = budget.disk_bytes_max(config, disk)
        calls = open_calls(stack, config)
        offsite, disk = await asyncio.to_thread(open_offsite, config, clock, disk, calls)
        log = open_log(stack, config, disk, clock, calls)
        hot = await asyncio.to_thread(open_hot, config, disk, disk_bytes_max, clock, pace, log)
        tiered = (config, disk, hot, tenants, clock, offsite, calls)
        rollup = await asyncio.to_thread(open_rollup, *tiered)
        heirs = open_succession(stack, config, offsite, hot, log, life, clock)
        cuts = cuts_of(config, hot, rollup, clock)
        follow_shard(stack, offsite, rollup, cuts, life.give_up if heirs is None else heirs.fenced)
        hot.start(life.give_up)
        stack.push_async_callback(life.seal, hot)
        evaluate_socket = sockets / "evaluate.sock"
        evaluate_socket.unlink(missing_ok=True)
        evaluate = EvaluateServer(hot.shard, str(evaluate_socket), budget.evaluate_options(config))
        start_behind(evaluate.start, config.queries_run)
        stack.callback(evaluate.stop)
        gate = await open_gate(stack, config, sockets, metrics, tls, calls.linked)
        begin_succession(stack, heirs, gate, log)

        deletions, follower = open_followers(stack, hot, tenants, clock)
        open_letting_go(stack, hot, rollup, clock)

        # The gateway and its doors.
        shard, acks = open_acks(stack, config, hot, log, clock)
        admission = open_metered_admission(stack, config, hot, tenants, clock)
        unreadable = open_unreadable(stack, config, tenants, clock)
        given = (shard, acks, admission, keyring, config.gateway, clock, metrics)
        receiver = Receiver(*given, unreadable)

        figures = figures_of(
            hot, disk, disk_bytes_max, tenants, deletions, follower, rollup, offsite, log
        )
        open_culprits(stack, config, hot, receiver, deletions, clock)
        letter_paths = open_letters(stack, disk, hot, receiver, keyring, clock, unreadable)
        watched = (hot, figures, partial(budget_look, hot), read, proxy, admission, metrics)
        alert_paths = open_alerts(stack, config, evaluate_socket, metrics, clock)
        own = OwnPaths(*watched, receiver, clock, alert_paths.grown, config.data_dir)
        alert_paths.start(own.facts)
        admin_paths = open_admin_paths(stack, config, disk, hot, rollup)
        tables = (own, letter_paths, alert_paths, *admin_paths)
        paths = {path: take for paths in tables for path, take in paths.table().items()}
        doors = None if config.roles == "shard" else receiver
        app = GatewayApp(doors, proxy, keyring, paths, metrics, config.part())
        context = None if tls is None else tls.context
        server = http_server(app, config.gateway, context, config.drain_s_max, app)
        stop_grpc = await open_grpc(config, receiver)
        tenants.start()
        stack.callback(tenants.stop)
        files: list[Reloadable] = [keyring] if tls is None else [keyring, tls]
        await life.serve(server, listener, (receiver, acks, own), stop_grpc, files)
    life.check()


def figures_of(
    hot: HotShard,
    disk: Disk,
    disk_bytes_max: int,
    tenants: SnapshotDirectory,
    deletions: Deletions,
    follower: PolicyFollower,
    rollup: Rollup,
    offsite: Offsite | None,
    log: "KafkaLog | None",
) -> Callable[[], dict[str, Any]]:
    """What /metrics and status ask the write side for."""

    def figures() -> dict[str, Any]:
        used, free = disk.used_bytes(), disk.free_bytes()
        told: dict[str, Any] = {
            "disk_bytes": used,
            "disk_bytes_max": disk_bytes_max,
            "disk_free_bytes": free,
        }
        told["tenants"] = len(tenants.snapshot().tenants)
        told["tenants_deleting"] = len(deletions.pending())
        told["policy_pending"] = int(follower.pending)
        if offsite is not None:
            told["offsite_manifests_behind"] = offsite.behind(hot.version())
        if log is not None:
            told |= log.figures()
        return {**hot.stats(), **told, **rollup.figures()}

    return figures


def open_culprits(
    stack: contextlib.AsyncExitStack,
    config: Config,
    hot: HotShard,
    receiver: Receiver,
    deletions: Deletions,
    clock: Clock,
) -> None:
    """Whoever names the first writer of an explosion."""
    kept = FirstWriters(config.data_dir / PLACE, clock.now_ms, deletions.pending)
    culprits = Culprits(hot.shard, receiver.writers, kept)
    culprits.start()
    stack.push_async_callback(asyncio.to_thread, culprits.stop)


def open_followers(
    stack: contextlib.AsyncExitStack, hot: HotShard, tenants: SnapshotDirectory, clock: Clock
) -> tuple[Deletions, PolicyFollower]:
    """What brings the records of tenants, and the policy, to the shard."""
    hot.age_letters_by(lambda: letter_ages_ms(tenants.snapshot(), clock.now_ms()))
    deletions, follower = Deletions(hot), PolicyFollower(hot, clock)
    for take in (deletions.take, follower.take):
        tenants.watch(take)
        take(tenants.snapshot())
    follower.start()
    stack.push_async_callback(asyncio.to_thread, follower.stop)
    deletions.start()
    stack.push_async_callback(asyncio.to_thread, deletions.stop)
    return deletions, follower


def open_letting_go(
    stack: contextlib.AsyncExitStack, hot: HotShard, rollup: Rollup, clock: Clock
) -> None:
    """What takes raw points past their tenants' own time out of files of others."""
    if rollup.broken:
        return  # Nobody knows what is rolled: every raw point stays.
    letting_go = LettingGo(hot, rollup.keeping, clock)
    letting_go.start()
    stack.push_async_callback(asyncio.to_thread, letting_go.stop)


def open_metered_admission(
    stack: contextlib.AsyncExitStack,
    config: Config,
    hot: HotShard,
    tenants: SnapshotDirectory,
    clock: Clock,
) -> Admission:
    """Who may come in, also by what their plans include: the read side's meter and the ledger say
    who is past it."""

    def received() -> dict[str, int]:
        return {name: row.received for name, row in hot.statement().tenants.items()}

    watch = VolumeWatch(CostFiles(config.data_dir / COST), tenants.snapshot, received, clock)
    watch.start()
    stack.push_async_callback(asyncio.to_thread, watch.stop)
    return open_admission(config, tenants, clock, watch.refusal)


def open_admission(
    config: Config,
    tenants: SnapshotDirectory,
    clock: Clock,
    refusal_of: RefusalOf = nobody_refused,
) -> Admission:
    """Who may come in, by each tenant's limits."""
    quotas = QuotaConfig(config.gateway.tenants_max, config.gateway.parked_s_max)

    def limits_of(tenant: str) -> WriteLimits:
        return tenants.limits(tenant).write

    limiter = EmbeddedQuotaLimiter(limits_of, quotas)
    return Admission(config.gateway, clock, jitter(), limits_of, limiter, refusal_of)


def open_unreadable(
    stack: contextlib.AsyncExitStack, config: Config, tenants: SnapshotDirectory, clock: Clock
) -> UnreadableBodies:
    """What keeps bodies that no decoder could read; a tenant's go as soon as it is deleted."""
    bodies = UnreadableBodies(config.data_dir / UNREADABLE, BodyLimits(), clock)

    def forget(snapshot: Snapshot) -> None:
        for tenant in snapshot.tenants.values():
            if tenant.status == "deleting":
                bodies.forget(tenant.name)

    tenants.watch(forget)
    bodies.start()
    stack.push_async_callback(asyncio.to_thread, bodies.stop)
    return bodies


def open_letters(
    stack: contextlib.AsyncExitStack,
    disk: Disk,
    hot: HotShard,
    receiver: Receiver,
    keyring: Keyring,
    clock: Clock,
    unreadable: UnreadableBodies,
) -> LetterPaths:
    """The paths of dead letters, and replays that go on where the last life left them."""
    letters = EmbeddedDeadLetters(disk, hot.version)
    replays = Replays(hot, letters, receiver, clock)
    replays.start()
    stack.push_async_callback(replays.stop)
    paths = LetterPaths(hot, letters, replays, keyring, clock, unreadable)
    stack.callback(paths.close)
    return paths


def open_calls(stack: contextlib.AsyncExitStack, config: Config) -> Calls:
    """What this side asks of object stores and brokers, kept for the bill."""
    zones = config.cost.zones
    calls = Calls(crossings(zones, config.kafka.replication), away(zones))
    outside = (objects_place(config)[0], config.shard_listen)
    if config.journal == "kafka" or any(one is not None for one in outside):
        keeper = CallKeeper(calls, config.data_dir / COST, "write")
        keeper.start()
        stack.push_async_callback(asyncio.to_thread, keeper.stop)
    return calls


def open_alerts(
    stack: contextlib.AsyncExitStack,
    config: Config,
    evaluate_socket: Path,
    metrics: Metrics,
    clock: Clock,
) -> AlertPaths:
    """The paths of alerts and the loop, not started yet, that judges the house's figures."""
    settings, book = config.alerts, AlertBook()
    explosions = Explosions(settings.explosion_series_per_min, settings.explosion_factor)
    watch = AlertWatch(book, explosions, explaining(ShardClient(evaluate_socket)), clock)
    notifier = Notifier(settings, jitter(), metrics, clock)
    seen = partial(spending, CostFiles(config.data_dir / COST))
    paths = AlertPaths(watch, book, notifier, settings.interval_s, metrics, clock, seen)
    stack.callback(paths.close)
    return paths


def open_log(
    stack: contextlib.AsyncExitStack, config: Config, disk: Disk, clock: Clock, calls: Calls
) -> "KafkaLog | None":
    """The log that is the journal, where it is not the shard's own; its client is imported only
    then. Raises: ImportError (the extra `kafka` is not installed), Corruption."""
    if config.journal == "embedded":
        refuse_foreign(disk)
        return None
    from sluiceway.journal.kafka.log import KafkaLog

    log = KafkaLog(config.kafka, disk, clock, config.drain_s_max, calls.fetched)
    # Closed after the shard, which seals what comes until then.
    stack.push_async_callback(asyncio.to_thread, log.feed.stop)
    return log


def open_acks(
    stack: contextlib.AsyncExitStack,
    config: Config,
    hot: HotShard,
    log: "KafkaLog | None",
    clock: Clock,
) -> tuple[WriteShard, Acks]:
    """What requests are written to, and who tells that they are durable."""
    shard: WriteShard = hot.shard if log is None else log.open_writer(stack, hot.shard)
    acks = Acks(shard, clock, config.gateway.ack_s_max)
    acks.start()
    return shard, acks


def open_hot(
    config: Config,
    disk: Disk,
    disk_bytes_max: int,
    clock: Clock,
    pace: Pace = unpaced,
    log: "KafkaLog | None" = None,
) -> HotShard:
    return HotShard(
        disk,
        budget.shard_options(config, disk_bytes_max),
        budget.hot_config(config, disk_bytes_max),
        clock,
        series_max=budget.series_cap(config),
        pace=pace,
        source=None if log is None else log.feed,
    )


def open_succession(
    stack: contextlib.AsyncExitStack,
    config: Config,
    offsite: Offsite | None,
    hot: HotShard,
    log: "KafkaLog | None",
    life: Life,
    clock: Clock,
) -> Succession | None:
    """What says where this shard is, and hands it over; None where nobody looks for it."""
    listen, kafka = config.shard_address or config.shard_listen, config.kafka
    if log is None or config.roles != "shard" or listen is None:
        return None
    from sluiceway.journal.kafka.owners import KafkaOwners

    owners = KafkaOwners(kafka)
    owners.start()
    stack.callback(owners.stop)
    term = 0 if offsite is None else offsite.last.term
    member = kafka.member or listen
    told = (kafka.partition, term, member, listen, config.http, clock.now_ms())
    own = Owner(OWNERS_VERSION, *told)
    return Succession(own, owners, hot, offsite, life, clock, kafka.hand_over_s_max)


def begin_succession(
    stack: contextlib.AsyncExitStack,
    heirs: Succession | None,
    gate: ShardGate | None,
    log: "KafkaLog | None",
) -> None:
    if heirs is not None and gate is not None and log is not None:
        heirs.begin(gate.links, log.feed.near_end, gate.reaches_shard)
        stack.push_async_callback(asyncio.to_thread, heirs.stop)


def open_rollup(
    config: Config,
    disk: Disk,
    hot: HotShard,
    tenants: SnapshotDirectory,
    clock: Clock,
    offsite: Offsite | None,
    calls: Calls,
) -> Rollup:
    """The rollup, which has told the shard what is rolled; before the shard is started."""
    bytes_max = budget.disk_bytes_max(config, disk)

    def disk_share() -> float:
        return disk.used_bytes() / bytes_max if bytes_max else 0.0

    remote = remote_tier(config, disk, offsite, calls)
    store, broken = CatalogStore(disk, clock, place=remote.place if remote else None), ""
    try:
        store.open()
    except Corruption as error:
        broken = str(error)
    rollup = Rollup(
        disk,
        hot.shard,
        hot,
        store,
        tenants.snapshot,
        tenants.limits,
        config.tiers,
        clock,
        WarmMerger(disk),
        ColdObjects(disk),
        Boundary(disk, hot.policy, WarmStripper(disk)),
        ColdMonths(disk),
        ErasedCold(disk),
        remote,
        disk_share=disk_share,
        broken=broken,
        secured=None if offsite is None else offsite.secured,
        retention_ms=config.retention_raw_ms,
    )
    rollup.attach()
    return rollup


def rolling_lanes(config: Config) -> Callable[[bool], None]:
    """Where the rollup's work is done, for its thread to choose: on idle time, but with a share of
    the cores while the disk is pressed, when nothing else makes room."""
    lanes = lane_behind("roll", config.queries_run), lane_behind("roll-pressed", "shared")
    return lambda pressed: lanes[pressed].take_over()


def open_admin_paths(
    stack: contextlib.AsyncExitStack, config: Config, disk: Disk, hot: HotShard, rollup: Rollup
) -> tuple[DeletionPaths, RollupPaths, ImportPaths]:
    """The paths of deletions, of the rollup, whose thread runs from now on, and of imports."""
    rollup.start(rolling_lanes(config))
    stack.push_async_callback(asyncio.to_thread, rollup.stop)
    boundary = Boundary(disk, hot.policy, WarmStripper(disk))
    cold = ColdObjects(disk)
    parts = (disk, hot.shard, rollup.store, cold, boundary)
    imports = Imports(*parts, config.tiers, rollup.remote)
    import_paths = ImportPaths(rollup, imports, config.data_dir)
    paths = DeletionPaths(hot), RollupPaths(rollup), import_paths
    for one in paths:
        stack.callback(one.close)
    return paths


def tls_files(config: Config) -> TlsFiles | None:
    if config.tls_cert is None or config.tls_key is None:
        return None
    return TlsFiles(config.tls_cert, config.tls_key, config.tls_client_ca)


async def open_grpc(
    config: Config, receiver: Receiver
) -> Callable[[float], Awaitable[None]] | None:
    """The gRPC door's `stop`, where the door is asked for; grpcio is imported only then."""
    if config.otlp_grpc is None:
        return None
    from sluiceway.gateway.doors.otlp_grpc import open_door

    files = (config.tls_cert, config.tls_key, config.tls_client_ca)
    return await open_door(config.otlp_grpc, receiver, config.gateway, files)


def shard_name(config: Config) -> str:
    """Of this process among those that share the tenants' records."""
    if config.journal == "kafka":
        return f"partition {config.kafka.partition}"
    return f"{socket.gethostname()}:{config.data_dir.resolve()}"


def read_settings(config: Config, sockets: Path) -> dict[str, Any]:
    tiers = config.tiers
    handed_on_max = config.gateway.read_requests_max + config.gateway.read_connections_idle_max
    return {
        "query": asdict(config.query),
        "tier_objects": (*objects_place(config), tiers.cache_bytes_max),
        "cost": {**asdict(config.cost), "price_sheet": path_text(config.cost.price_sheet)},
        "query_log_bytes_max": budget.query_log_bytes_max(config),
        "evaluate_socket": str(sockets / "evaluate.sock"),
        "data_dir": str(config.data_dir.resolve()),
        "tenants_dir": str(config.tenants_place().resolve()),
        "tenants_url": config.tenants_url,
        "tenants_shards": (shard_name(config), config.tenants_shards),
        "shards": [],
        "part": config.part(),
        "shards_since_ms": config.shards_since_s * 1000,
        "http_socket": str(sockets / "read.sock"),
        "tiers_socket": None if config.shard_listen is None else str(sockets / "tiers.sock"),
        "connections_max": handed_on_max + READ_CONNECTIONS_SPARE,
        "queries_run": config.queries_run,
        "query_threads": config.query_threads,
        "memory_bytes_max": budget.read_memory_bytes(config),
        "log_level": config.log_level,
    }


def path_text(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def serve(config: Config, pace: Pace = unpaced, beat: Beat = silent) -> None:
    """Run the write side until SIGTERM or Ctrl-C; `pace` holds the processor back in tests, `beat`
    is a sign of life for whoever started it."""
    set_up_logs(config.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(write_side(config, pace=pace, beat=beat))
