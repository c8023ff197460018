"""What the read side is built from: the second process of `sluiceway serve`.

Invariant: as wiring.py's: opened in the order of dependence. What only requests need is imported
by the first of them.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluiceway.clock import Clock, SystemClock
from sluiceway.cost.files import CostFiles
from sluiceway.cost.spending import Budget
from sluiceway.kernels import Disk, ShardClient
from sluiceway.query.limits import QueryConfig
from sluiceway.serve import budget
from sluiceway.serve.directory import COST, QUERIES, TENANTS_DATABASE, TENANTS_SNAPSHOT
from sluiceway.telemetry import Metrics
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.limits import NO_SPEND
from sluiceway.tenants.model import DEFAULT_TENANT

if TYPE_CHECKING:
    from sluiceway.admin.app import AdminApp
    from sluiceway.admin.whatif import ReadQueries
    from sluiceway.objects.interface import ObjectStore
    from sluiceway.query.api.cost import CostApi
    from sluiceway.query.api.prometheus import Endpoint
    from sluiceway.query.objects import ObjectFiles
    from sluiceway.query.promql.engine import Engine
    from sluiceway.query.querylog.entry import Entry
    from sluiceway.query.querylog.writer import QueryLog
    from sluiceway.query.sharded import ShardedReader
    from sluiceway.query.tiered import TieredReader
    from sluiceway.tenants.interface import TenantStore
    from sluiceway.tenants.publisher import Publisher

LEDGER_MS_MAX = 10_000
"""Of a look at the orders to delete."""
SHARD_THREADS_MAX = 256
"""Of a process that asks several shards: one waits for each shard of each query."""


def read_side(settings: dict[str, Any]) -> None:
    """Query API and engine over a Unix socket, reached through the gateway."""
    # Imported here: the write side must not wait for numpy and the engine before its first ack.
    from sluiceway.query.api.app import QueryApp
    from sluiceway.query.api.cardinality import CardinalityApi
    from sluiceway.query.api.prometheus import PrometheusApi
    from sluiceway.query.api.query_log import QueryLogApi
    from sluiceway.query.promql.engine import Engine
    from sluiceway.serve.child import MEMORY_BYTES_MIN, serve_until_told
    from sluiceway.serve.read_paths import ReadPaths

    limits = QueryConfig(**settings["query"])
    memory_bytes_max = max(settings["memory_bytes_max"], MEMORY_BYTES_MIN)
    clock, metrics = SystemClock(), Metrics()
    metrics.set("sluiceway_process_start_seconds", clock.now_ms() / 1000, ("read",))
    metrics.set("sluiceway_memory_bytes_max", memory_bytes_max, ("read",))
    tenants_at = Path(settings["tenants_dir"]), settings["tenants_url"]
    tenants = open_directory(*tenants_at, clock)
    engine_limits = budget.engine_limits(limits, memory_bytes_max)
    client = ShardClient(settings["evaluate_socket"])
    sharded = open_shards(settings, limits)
    reader = sharded or open_tiers(settings, limits, client, memory_bytes_max, clock)
    engine = Engine(reader, engine_limits, clock, tenants)
    log = open_query_log(settings, limits, engine, tenants, clock, metrics)
    queries_root = Path(settings["data_dir"]) / QUERIES
    told = QueryLogApi(queries_root, log, clock)
    series = CardinalityApi(reader, queries_root, log, clock)
    more = {"query_log": told.queries, "cardinality": series.cardinality}
    more |= export_endpoint(reader, limits, clock)
    make_admin = None
    tenants.start()
    publisher = open_publisher(*tenants_at, tenants, clock)
    if sharded is None or settings["tenants_url"]:
        publisher.start()
    if sharded is None:
        costs = open_cost(settings, client, log, tenants, clock)
        shard, shards = settings["tenants_shards"] if settings["tenants_url"] else ("", 1)
        if shards > 0:  # One shard's proof is not that of all.
            start_forgetting(publisher, tenants, client, clock, shard, shards)
        queries = None if log is None else logged_queries(Path(settings["data_dir"]))
        make_admin = partial(admin_app, publisher, clock, client, tenants, queries, costs)
    else:
        costs = open_sharded_cost(settings, sharded, tenants, clock)
        if settings["tenants_url"]:
            make_admin = partial(records_app, publisher, clock)
    more["cost"] = costs.cost
    api = PrometheusApi(engine, reader, limits, clock, more)
    app = QueryApp(api, limits, clock, metrics, tenants, log, settings["part"])
    paths = ReadPaths(app, make_admin)
    connections_max, queries_run = settings["connections_max"], settings["queries_run"]
    beside = open_tier_answers(settings, reader, client, costs)
    serve_until_told(paths, settings["http_socket"], connections_max, queries_run, beside)
    if log is not None:
        log.stop()


def export_endpoint(
    reader: "ShardedReader | TieredReader", limits: QueryConfig, clock: Clock
) -> "dict[str, Endpoint]":
    """Export of the tiers, where this process reads them."""
    from sluiceway.query.api.export import ExportApi
    from sluiceway.query.extract import Extractor
    from sluiceway.query.tiered import TieredReader

    if not isinstance(reader, TieredReader):
        return {}
    return {"export": ExportApi(Extractor(reader.tiers), limits, clock).export}


def open_tier_answers(
    settings: dict[str, Any],
    reader: "ShardedReader | TieredReader",
    client: ShardClient,
    costs: "CostApi",
) -> Callable[[], None] | None:
    """The socket behind the shard's gate, where it has one: what starts it."""
    from sluiceway.query.api.sharded_cost import COST_OP
    from sluiceway.query.tiered import TieredReader
    from sluiceway.serve.tier_socket import TierAnswers, open_tier_socket

    path = settings["tiers_socket"]
    if path is None or not isinstance(reader, TieredReader):
        return None
    Path(path).unlink(missing_ok=True)
    return open_tier_socket(TierAnswers(reader, client, {COST_OP: costs.part}), path)


def open_shards(settings: dict[str, Any], limits: QueryConfig) -> "ShardedReader | None":
    """The shards of other processes; None where this one has its own."""
    if not settings["shards"]:
        return None
    from sluiceway.query.sharded import Member, ShardedReader

    members = [Member(name, ShardClient(socket)) for name, socket in settings["shards"]]
    # Twice: a shard that is late has its thread for a while after its query has ended.
    threads_max = min(SHARD_THREADS_MAX, 2 * len(members) * limits.concurrency_max)
    return ShardedReader(lambda: members, threads_max, lambda: settings["shards_since_ms"])


def open_tiers(
    settings: dict[str, Any],
    limits: QueryConfig,
    client: ShardClient,
    memory_bytes_max: int,
    clock: Clock,
) -> "TieredReader":
    """What queries read through: the shard, and beside it the files that the catalog names."""
    from sluiceway.kernels import TierReader
    from sluiceway.query.pinned import Tiers
    from sluiceway.query.tiered import TieredReader
    from sluiceway.tiers.catalog_store import follow
    from sluiceway.tiers.damage import NoteTaker

    data_dir = Path(settings["data_dir"])
    options = budget.tier_options(limits, memory_bytes_max, settings["query_threads"])
    files = TierReader(Disk.real(str(data_dir)), options)
    notes = NoteTaker(data_dir, clock.now_ms)
    objects = open_object_files(settings, data_dir)
    catalog = follow(data_dir).catalog
    return TieredReader(Tiers(client, files, catalog, clock, notes.leave, objects))


def open_object_files(settings: dict[str, Any], data_dir: Path) -> "ObjectFiles | None":
    """Rollups on an object store, fetched through a cache; None where all are here."""
    from sluiceway.cost.call_files import CallKeeper
    from sluiceway.cost.calls import Calls
    from sluiceway.objects.cache import CacheConfig, ObjectCache
    from sluiceway.query.objects import CACHE_DIRECTORY, ObjectFiles

    url, options, bytes_max = settings["tier_objects"]
    if url is None:
        return None
    cache = CacheConfig(bytes_max)
    calls = Calls()
    CallKeeper(calls, data_dir / COST, "read").start()
    store = calls.over(open_objects(url, options))
    return ObjectFiles(data_dir, ObjectCache(store, data_dir / CACHE_DIRECTORY, cache))


def open_query_log(
    settings: dict[str, Any],
    limits: QueryConfig,
    engine: "Engine",
    tenants: SnapshotDirectory,
    clock: Clock,
    metrics: Metrics,
) -> "QueryLog | None":
    """The query log, begun; None where the settings want none."""
    from sluiceway.query.querylog.files import LogFiles, LogLimits
    from sluiceway.query.querylog.writer import QueryLog

    bytes_max, own_max = settings["query_log_bytes_max"], limits.log_tenant_bytes_max
    if bytes_max == 0:
        return None
    bounds = LogLimits(bytes_max, min(own_max, bytes_max // 4), limits.log_days_max)
    files = LogFiles(Path(settings["data_dir"]) / QUERIES, bounds)

    def deleting() -> list[str]:
        held = tenants.snapshot().tenants.values()
        return [tenant.name for tenant in held if tenant.status == "deleting"]

    log = QueryLog(files, limits, engine.queries, clock, metrics, deleting)
    log.start()
    return log


def open_cost(
    settings: dict[str, Any],
    client: ShardClient,
    log: "QueryLog | None",
    tenants: SnapshotDirectory,
    clock: Clock,
) -> "CostApi":
    """The meter, begun, and the endpoint that tells what it read."""
    from sluiceway.cost.config import CostConfig
    from sluiceway.cost.meter import Meter
    from sluiceway.cost.plans import plans_of
    from sluiceway.cost.volumes import included_by
    from sluiceway.query.api.cost import CostApi
    from sluiceway.services.usage_look import UsageLook

    data_dir, given = Path(settings["data_dir"]), settings["cost"]
    sheet = given["price_sheet"]
    config = CostConfig(**{**given, "price_sheet": None if sheet is None else Path(sheet)})
    queries = None if log is None else logged_queries(data_dir)
    sides = {"write": settings["parent_id"], "read": os.getpid()}
    look = UsageLook(data_dir, client, queries, sides, clock)

    def budgets() -> dict[str, Budget]:
        names = (tenant.name for tenant in tenants.snapshot().tenants.values())
        limits = {name: tenants.limits(name).spend for name in names}
        set_ones = {name: spend for name, spend in limits.items() if spend != NO_SPEND}
        return {name: Budget(s.month_soft, s.month_hard) for name, s in set_ones.items()}

    def included() -> list[str]:
        return included_by(tenants.snapshot())

    files = CostFiles(data_dir / COST)
    meter = Meter(
        files, look, config.sheet(), budgets, clock, included, lambda: plans_of(tenants.snapshot())
    )
    if config.interval_s > 0:
        meter.start(config.interval_s)
    return CostApi(meter, look, client, tenants.snapshot, config.team_label, clock)


def open_sharded_cost(
    settings: dict[str, Any], sharded: "ShardedReader", tenants: SnapshotDirectory, clock: Clock
) -> "CostApi":
    """The shards' bills as one. Each shard has a meter of its own; here none runs."""
    from sluiceway.query.api.cost import CostApi
    from sluiceway.query.api.sharded_cost import COST_S_MAX, ShardedMeter
    from sluiceway.serve.frames import ask_all

    members = [(name, socket) for name, socket in settings["shards"]]
    meter = ShardedMeter(lambda request: ask_all(members, request, COST_S_MAX))
    label = settings["cost"]["team_label"]
    return CostApi(meter, meter.look, sharded, tenants.snapshot, label, clock)


def start_forgetting(
    publisher: "Publisher",
    tenants: SnapshotDirectory,
    client: ShardClient,
    clock: Clock,
    shard: str,
    shards: int,
) -> None:
    """Records of tenants go when their data has, at so many shards."""
    from sluiceway.admin.forgetting import Forgetting

    asked = {"tenant": DEFAULT_TENANT, "timeout_ms": LEDGER_MS_MAX, "raw_scan": False}

    def ledger() -> dict[str, Any]:
        return client.ledger(asked)

    Forgetting(publisher, tenants.snapshot, ledger, clock, shard, shards).start()


def open_directory(place: Path, url: str | None, clock: Clock) -> SnapshotDirectory:
    """The tenants as this process sees them; each process has one. `url`: of the database, where
    it is not a file in `place`."""
    database = None if url else place / TENANTS_DATABASE
    return SnapshotDirectory(place / TENANTS_SNAPSHOT, database, clock)


def open_publisher(
    place: Path, url: str | None, tenants: SnapshotDirectory, clock: Clock
) -> "Publisher":
    """Where tenants change: on the read side, so that no SQL runs beside the acks."""
    from sluiceway.tenants.publisher import Publisher

    database = None if url else place / TENANTS_DATABASE

    def open_store() -> "TenantStore":
        if url:
            from sluiceway.tenants.postgres import PostgresStore

            return PostgresStore(url, clock)
        from sluiceway.tenants.embedded import EmbeddedStore

        return EmbeddedStore(place / TENANTS_DATABASE, clock)

    return Publisher(open_store, database, place / TENANTS_SNAPSHOT, tenants)


def logged_queries(data_dir: Path) -> "Callable[[int], Iterator[Entry]]":
    """Queries that are in the log's files: the last seconds' are not yet."""
    from sluiceway.query.querylog.reader import entries

    def since(since_ms: int) -> "Iterator[Entry]":
        every = entries(data_dir / QUERIES, since_ms=since_ms)
        return (entry for entry in every if entry.time_ms >= since_ms)

    return since


def admin_app(
    publisher: "Publisher",
    clock: Clock,
    client: ShardClient,
    tenants: SnapshotDirectory,
    queries: "ReadQueries | None",
    costs: "CostApi",
) -> "AdminApp":
    from sluiceway.admin.app import AdminApp
    from sluiceway.admin.policies import PolicyRoutes
    from sluiceway.admin.tenants import TenantRoutes
    from sluiceway.admin.whatif import WhatIfRoutes

    whatif = WhatIfRoutes(client, tenants.snapshot, queries, clock, costs.rates)
    return AdminApp(TenantRoutes(publisher, clock), PolicyRoutes(publisher), whatif)


def records_app(publisher: "Publisher", clock: Clock) -> "AdminApp":
    """The admin API of a process without a shard: tenants, plans and policies, which are in a
    database that all processes look at. What-if is the shards': they have the recorded hours."""
    from sluiceway.admin.app import AdminApp
    from sluiceway.admin.policies import PolicyRoutes
    from sluiceway.admin.tenants import TenantRoutes

    return AdminApp(TenantRoutes(publisher, clock), PolicyRoutes(publisher))


def open_objects(place: str, options: dict[str, str]) -> "ObjectStore":
    """Objects below a directory (a path or file://), or on a service by its URL.

    Raises: ImportError (obstore is not installed), ValueError.
    """
    scheme, separator, rest = place.partition("://")
    if not separator or scheme == "file":
        from sluiceway.objects.embedded import EmbeddedObjects

        return EmbeddedObjects(Path(rest if separator else place).absolute())
    from sluiceway.objects.remote import RemoteObjects

    return RemoteObjects(place, options)
