"""What a member of the shards' group is built from: the group's word, and a process a partition.

Invariant: as wiring.py's: opened in the order of dependence, closed in its reverse. It holds no
series itself; each partition's process is wiring.py's write side, with settings of its own.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any

import structlog
import uvloop

from sluiceway.clock import SystemClock
from sluiceway.config import Config, split_address
from sluiceway.errors import BackendUnavailable, SluicewayError
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.server import http_server, listen
from sluiceway.journal.kafka.membership import Membership
from sluiceway.journal.kafka.owners import KafkaOwners
from sluiceway.serve.child import die_with_parent
from sluiceway.serve.directory import open_disk
from sluiceway.serve.life import Life, Reloadable
from sluiceway.serve.logs import set_up_logs
from sluiceway.serve.member import Partitions
from sluiceway.serve.member_paths import MemberPaths
from sluiceway.serve.pulse import pulse_of
from sluiceway.telemetry import Metrics
from sluiceway.wiring import serve, tls_files
from sluiceway.wiring_read import open_directory

PARTITION_MAIN = """
from sluiceway.serve.quick_start import quick_start
quick_start()
from sluiceway.wiring_member import run_partition
run_partition()
"""
PARTITION = (sys.executable, "-c", PARTITION_MAIN)
SILENT_S_MORE = 20.0
"""Past `drain_s_max`, in which a process that ends is rightly silent: who is silent for longer
hangs."""
log = structlog.get_logger()


async def member_side(config: Config) -> None:
    """Serves until told to stop. Raises: OSError, BackendUnavailable."""
    clock, metrics = SystemClock(), Metrics()
    life = Life(config, clock, metrics)
    metrics.set("sluiceway_process_start_seconds", clock.now_ms() / 1000, ("write",))
    tenants = open_directory(config.tenants_place(), config.tenants_url, clock)
    keyring = Keyring(config.key_file() if config.auth == "keys" else None, tenants, clock)
    tls = tls_files(config)
    kafka, name = config.kafka, member_name(config)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(listen(*split_address(config.http)))
        disk = open_disk(config.data_dir)
        stack.callback(lambda: disk)  # its lock is held until the end
        owners = KafkaOwners(kafka)
        owners.start()
        stack.callback(owners.stop)
        membership = Membership(kafka, name, clock, lambda: partitions.wake())
        partitions = Partitions(
            membership,
            PARTITION,
            lambda number: partition_settings(config, number),
            kafka.member_partitions_max,
            config.drain_s_max + SILENT_S_MORE,
            clock,
        )
        membership.start()
        stack.push_async_callback(asyncio.to_thread, membership.stop)
        paths = MemberPaths(name, membership, partitions, owners.all, metrics)
        app = GatewayApp(None, None, keyring, paths.table(), metrics)
        context = None if tls is None else tls.context
        server = http_server(app, config.gateway, context, config.drain_s_max)
        tenants.start()
        stack.callback(tenants.stop)
        files: list[Reloadable] = [keyring] if tls is None else [keyring, tls]

        async def drain() -> None:
            """Others take over while ours go on; without others, ours end as they are."""
            hand_over_s_max = 0.0
            followed = await asyncio.to_thread(others, membership)
            if followed and partitions.running():
                membership.leave()
                hand_over_s_max = kafka.hand_over_s_max
            await partitions.end(hand_over_s_max, config.drain_s_max)

        await life.serve_until_told(server, listener, partitions.watch(), drain, files)


def others(membership: Membership) -> bool:
    """Is anybody else there to take over? Not where nobody can say."""
    try:
        return membership.others() > 0
    except BackendUnavailable as error:
        log.warning("group_not_asked", error=str(error))
        return False


def member_name(config: Config) -> str:
    assert config.shard_listen is not None, "checked with the configuration"
    return config.kafka.member or config.shard_address or config.shard_listen


def partition_settings(config: Config, number: int) -> dict[str, Any]:
    """The configuration of the process that serves partition `number`."""
    kafka, share = config.kafka, config.kafka.member_partitions_max
    settings: dict[str, Any] = config.model_dump(mode="json")
    settings["kafka"] |= {
        "group": "",
        "partition": number,
        "adopt": True,
        "member": member_name(config),
    }
    settings |= {
        "data_dir": str(config.data_dir / f"partition-{number:05d}"),
        "offsite_url": f"{(config.offsite_url or '').rstrip('/')}/{number}",
        "http": nth_address(config.http, number + 1),
        "shard_listen": nth_address(config.shard_listen or "", number),
        "memory_max": config.memory_bytes_max() // share,
        "disk_max": config.disk_max // share,
        "series_max": max(1, config.series_max // share),
        "otlp_grpc": None,
    }
    if config.shard_address is not None:
        settings["shard_address"] = nth_address(config.shard_address, number)
    if config.auth == "keys":
        settings["auth_keys"] = str(config.key_file())
    if kafka.outbox_bytes_max:
        settings["kafka"]["outbox_bytes_max"] = 0  # it takes no writes
    return settings


def nth_address(address: str, number: int) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + number}"


def run_partition() -> None:
    """One partition's process: its settings come on the standard input."""
    told = sys.stdin.buffer.read()
    if not told:
        return  # it was kept ready, and is not needed
    settings = json.loads(told)
    die_with_parent(settings["parent_id"])
    try:
        serve(Config(**settings["config"]), beat=pulse_of(settings["pulse"]))
    except (SluicewayError, OSError, ValueError) as error:
        print(f"sluiceway: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_status", 1))


def serve_member(config: Config) -> None:
    """Run a member of the shards' group until SIGTERM or Ctrl-C."""
    set_up_logs(config.log_level)
    uvloop.run(member_side(config))
