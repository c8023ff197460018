"""What a process with the role `query` is built from; `wiring.py` has the others.

Invariant: as wiring.py's: opened in the order of dependence, closed in its reverse.
"""

import asyncio
import contextlib

import structlog
import uvloop

from sluiceway.clock import SystemClock
from sluiceway.config import Config, is_loopback, split_address
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.server import http_server, listen
from sluiceway.journal.owners import Owner
from sluiceway.serve.directory import open_disk, socket_directory
from sluiceway.serve.life import Life, Reloadable
from sluiceway.serve.links import open_links
from sluiceway.serve.logs import set_up_logs
from sluiceway.serve.query_paths import QueryPaths
from sluiceway.serve.read_process import ReadProcess
from sluiceway.serve.shard_link import ShardLink
from sluiceway.telemetry import Metrics
from sluiceway.wiring import READ_SIDE, read_settings, tls_files
from sluiceway.wiring_read import open_directory

FIND_S_MAX = 5.0
"""That the start waits for Kafka to say where shards are; later is not too late."""
log = structlog.get_logger()


async def query_side(config: Config) -> None:
    """The role `query`: the gateway without doors, links to the shards, and the read side over
    them. Serves until told to stop. Raises: OSError, ValueError."""
    clock, metrics = SystemClock(), Metrics()
    life = Life(config, clock, metrics)
    metrics.set("sluiceway_process_start_seconds", clock.now_ms() / 1000, ("write",))
    tenants = open_directory(config.tenants_place(), config.tenants_url, clock)
    keyring = Keyring(config.key_file() if config.auth == "keys" else None, tenants, clock)
    tls = tls_files(config)
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(listen(*split_address(config.http)))
        disk = open_disk(config.data_dir)
        stack.callback(lambda: disk)  # its lock is held until the end
        sockets = stack.enter_context(socket_directory(config.data_dir))
        links = await open_links(stack, config, sockets)
        await find_shards(stack, config, links)
        proxy = ReadProxy(str(sockets / "read.sock"), config.gateway)
        stack.callback(proxy.close)
        shards = [[link.name, str(sockets / f"shard-{n}.sock")] for n, link in enumerate(links)]
        settings = {**read_settings(config, sockets), "shards": shards}
        read = ReadProcess(READ_SIDE, settings, proxy, metrics)
        read.start()
        stack.push_async_callback(read.stop)
        paths = QueryPaths(read, proxy, links, metrics)
        app = GatewayApp(None, proxy, keyring, paths.table(), metrics)
        context = None if tls is None else tls.context
        server = http_server(app, config.gateway, context, config.drain_s_max)
        tenants.start()
        stack.callback(tenants.stop)
        files: list[Reloadable] = [keyring] if tls is None else [keyring, tls]

        async def drain() -> None:
            """Nothing is taken that must be kept."""

        await life.serve_until_told(server, listener, paths.watch(), drain, files)


async def find_shards(
    stack: contextlib.AsyncExitStack, config: Config, links: list[ShardLink]
) -> None:
    """Point the links at whoever answers for each partition, now and later."""
    if not config.finds_shards():
        return
    from sluiceway.journal.kafka.owners import KafkaOwners

    owners, loop = KafkaOwners(config.kafka), asyncio.get_running_loop()
    tls = config.shards_ca is not None or config.allow_insecure

    def found(owner: Owner) -> None:
        if tls or is_loopback(owner.address):
            link, address = links[owner.partition], split_address(owner.address)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(link.point_at, address)
        else:
            log.error("shard_not_asked", address=owner.address, why="shards_ca is not set")

    owners.watch(found)
    owners.start()
    stack.push_async_callback(asyncio.to_thread, owners.stop)
    await asyncio.to_thread(owners.wait_known, FIND_S_MAX)


def serve_queries(config: Config) -> None:
    """Run the role `query` until SIGTERM or Ctrl-C."""
    set_up_logs(config.log_level)
    uvloop.run(query_side(config))
