"""Gate and links as the configuration asks for them.

Invariant: what the configuration does not ask for listens nowhere.
"""

import asyncio
import contextlib
import secrets
import ssl
import threading
from pathlib import Path

from sluiceway.config import Config, split_address
from sluiceway.gateway.server import TlsFiles
from sluiceway.serve.shard_link import (
    Cluster,
    Moved,
    ShardGate,
    ShardLink,
    read_secret,
    unmeasured,
)
from sluiceway.telemetry import Metrics

STOP_S_MAX = 2.0


def cluster_of(config: Config) -> Cluster:
    assert config.shard_secret is not None, "checked with the configuration"
    return Cluster(read_secret(config.shard_secret), secrets.token_bytes)


async def open_gate(
    stack: contextlib.AsyncExitStack,
    config: Config,
    sockets: Path,
    metrics: Metrics,
    tls: TlsFiles | None,
    moved: Moved = unmeasured,
) -> ShardGate | None:
    """The gate to the shard, where one is asked for, on a thread and loop of its own: answers
    that it hands on never stand before acks. `moved` is told, there, of bytes that pass. Raises:
    OSError, ValueError."""
    if config.shard_listen is None:
        return None
    context = None if tls is None else tls.context
    gate = ShardGate(cluster_of(config), sockets / "tiers.sock", metrics, context, moved)
    host, port = split_address(config.shard_listen)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sluiceway-gate", daemon=True)
    thread.start()

    def stop() -> None:
        loop.call_soon_threadsafe(gate.stop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_S_MAX)

    stack.callback(stop)
    started = asyncio.run_coroutine_threadsafe(gate.start(host, port), loop)
    await asyncio.wrap_future(started)
    return gate


async def open_links(
    stack: contextlib.AsyncExitStack, config: Config, sockets: Path
) -> list[ShardLink]:
    """A socket for each shard: of those that the configuration names, or of each partition, which
    nobody has been found for yet. Raises: OSError, ValueError."""
    cluster = cluster_of(config)
    context = None
    if config.shards_ca is not None:
        context = ssl.create_default_context(cafile=config.shards_ca)
    links = []
    named: list[tuple[str, str | None]] = [*config.shard_addresses()]
    if config.finds_shards():
        named = [(f"p{partition}", None) for partition in range(config.kafka.partitions)]
    for number, (name, address) in enumerate(named):
        link = ShardLink(cluster, name, split_address(address) if address else None, context)
        await link.start(sockets / f"shard-{number}.sock")
        stack.callback(link.stop)
        links.append(link)
    return links
