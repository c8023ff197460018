"""What a process with the role `gateway` is built from: doors, and a log that shards read.

Invariant: as wiring.py's: opened in the order of dependence, closed in its reverse. It holds no
series and answers no query.
"""

import contextlib
from pathlib import Path

import uvloop

from sluiceway.clock import Clock, SystemClock
from sluiceway.config import Config, split_address
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.receive import Receiver
from sluiceway.gateway.server import http_server, listen
from sluiceway.journal.kafka.gateway import KafkaGateway
from sluiceway.kernels import Disk, Shard
from sluiceway.rollup.ages import look as ages_of
from sluiceway.serve import budget
from sluiceway.serve.directory import open_disk
from sluiceway.serve.gateway_paths import GatewayPaths
from sluiceway.serve.life import Life, Reloadable
from sluiceway.serve.logs import set_up_logs
from sluiceway.telemetry import Metrics
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.model import Snapshot
from sluiceway.wiring import open_admission, open_grpc, open_unreadable, tls_files
from sluiceway.wiring_read import open_directory, open_publisher


async def gateway_side(config: Config) -> None:
    """Serves until told to stop. Raises: OSError, BackendUnavailable, Corruption."""
    clock, metrics = SystemClock(), Metrics()
    life = Life(config, clock, metrics)
    metrics.set("sluiceway_process_start_seconds", clock.now_ms() / 1000, ("write",))
    tenants = open_directory(config.tenants_place(), config.tenants_url, clock)
    keyring = Keyring(config.key_file() if config.auth == "keys" else None, tenants, clock)
    tls = tls_files(config)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(listen(*split_address(config.http)))
        disk = open_disk(config.data_dir)
        decoder = open_decoder(config, disk, tenants)
        log = KafkaGateway(stack, config.kafka, disk, decoder, clock, config.drain_s_max)
        acks = Acks(log.writer, clock, config.gateway.ack_s_max)
        acks.start()
        admission = open_admission(config, tenants, clock)
        unreadable = open_unreadable(stack, config, tenants, clock)
        given = (log.writer, acks, admission, keyring, config.gateway, clock, metrics)
        receiver = Receiver(*given, unreadable)

        def missing() -> str:
            return log.missing() if receiver.accepting else "not accepting"

        paths = GatewayPaths(missing, lambda: log.failure, log.writer.figures, admission, metrics)
        app = GatewayApp(receiver, None, keyring, paths.table(), metrics)
        context = None if tls is None else tls.context
        server = http_server(app, config.gateway, context, config.drain_s_max, app)
        stop_grpc = await open_grpc(config, receiver)
        tenants.start()
        stack.callback(tenants.stop)
        follow_tenants(stack, config.tenants_place(), config.tenants_url, tenants, clock)
        files: list[Reloadable] = [keyring] if tls is None else [keyring, tls]

        async def drain() -> None:
            receiver.accepting = False
            if stop_grpc is not None:
                await stop_grpc(config.drain_s_max / 4)

        try:
            await life.serve_until_told(server, listener, None, drain, files)
        finally:
            acks.stop()
            receiver.close()


def open_decoder(config: Config, disk: Disk, tenants: SnapshotDirectory) -> Shard:
    """A shard that only decodes and cuts: it has no journal and no blocks. Points older than
    their tenants keep are refused by it, as a shard of its own would."""
    decoder = Shard(disk, budget.shard_options(config, budget.disk_bytes_max(config, disk)))

    def take(snapshot: Snapshot) -> None:
        decoder.set_age_days(ages_of(snapshot, tenants.limits, config.tiers, ()).door_days)

    tenants.watch(take)
    take(tenants.snapshot())
    return decoder


def follow_tenants(
    stack: contextlib.AsyncExitStack,
    place: Path,
    url: str | None,
    tenants: SnapshotDirectory,
    clock: Clock,
) -> None:
    """Where the records are in a database elsewhere, nobody else writes the snapshot for us."""
    if url is None:
        return
    publisher = open_publisher(place, url, tenants, clock)
    publisher.start()
    stack.callback(publisher.stop)


def serve_gateway(config: Config) -> None:
    """Run the role `gateway` until SIGTERM or Ctrl-C."""
    set_up_logs(config.log_level)
    uvloop.run(gateway_side(config))
