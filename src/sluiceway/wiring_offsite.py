"""A shard that any machine can take over: its checkpoints, and where its files of windows go.

Invariant: the shard is taken before anything of it is opened; what follows it is told of each
change of the hot tier and of the catalog, and only of states that a kill would have left.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

from sluiceway.clock import Clock
from sluiceway.config import Config
from sluiceway.cost.calls import Calls
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.rollup.offload import RemoteTier, Term
from sluiceway.rollup.worker import Rollup
from sluiceway.services.offsite.cut import Cut, SealedCuts, take_cut
from sluiceway.services.offsite.elsewhere import DIRECTORY as BLOCKS_CACHE
from sluiceway.services.offsite.elsewhere import BlocksElsewhere, is_lazy
from sluiceway.services.offsite.follower import Offsite
from sluiceway.services.offsite.takeover import take_shard
from sluiceway.wiring_read import open_objects

OFFSITE_STOP_S_MAX = 30.0
SETTLE_S_MAX = 60.0
"""For a seal between two tasks of the rollup."""


def open_offsite(
    config: Config, clock: Clock, disk: Disk, calls: Calls
) -> tuple[Offsite | None, Disk]:
    """The shard, taken: none else may write its checkpoints from now on; None where it has none
    offsite. And the disk, with the blocks that come when they are asked for. Blocks for the store.
    Raises: Corruption, BackendUnavailable, OSError, ValueError."""
    if config.offsite_url is None:
        return None, disk
    store = calls.over(open_objects(config.offsite_url, config.offsite_options))
    lazy, in_kafka = config.offsite_cache_bytes_max > 0, config.journal == "kafka"
    later = is_lazy if lazy else lambda file: False
    last = take_shard(store, config.data_dir, clock, os.urandom, later, in_kafka)
    offsite = Offsite(store, config.data_dir, last, clock)
    gone = [f for f in last.files if is_lazy(f) and not (config.data_dir / f.path).exists()]
    if gone:
        cache = config.data_dir / BLOCKS_CACHE
        elsewhere = BlocksElsewhere(store, cache, gone, config.offsite_cache_bytes_max)
        elsewhere.fetch_ends()
        disk = elsewhere.disk(disk)
    return offsite, disk


def cuts_of(config: Config, hot: HotShard, rollup: Rollup, clock: Clock) -> Callable[[], Cut]:
    """What a checkpoint is made of. Raises, when called: Corruption (the catalog cannot be read:
    who takes the shard over is better off with the last one), BackendUnavailable, Overloaded."""

    def cut() -> Cut:
        remote = rollup.remote
        if rollup.broken or remote is None:
            raise Corruption(f"the catalog cannot be read: {rollup.broken}")
        return take_cut(hot.version, lambda: rollup.store.catalog, remote.are_placed)

    def settled() -> Cut:
        def sealed(*_: object) -> Cut:
            hot.flush(False, SETTLE_S_MAX)
            return cut()

        found: Cut = rollup.between_tasks(sealed, SETTLE_S_MAX)
        return found

    return cut if config.journal == "kafka" else SealedCuts(cut, settled, clock)


def follow_shard(
    stack: contextlib.AsyncExitStack,
    offsite: Offsite | None,
    rollup: Rollup,
    cuts: Callable[[], Cut],
    on_fenced: Callable[[Exception], None],
) -> None:
    """Bring each cut offsite, and the last one after the last seal; when another process has
    taken the shard, `on_fenced` is told."""
    if offsite is None:
        return

    def kept() -> set[str]:
        return set() if rollup.remote is None else rollup.remote.kept(rollup.store.catalog)

    async def stop() -> None:
        await asyncio.to_thread(offsite.stop, cuts, OFFSITE_STOP_S_MAX)

    stack.push_async_callback(stop)
    offsite.start(cuts, on_fenced, kept)


def remote_tier(
    config: Config, disk: Disk, offsite: Offsite | None, calls: Calls
) -> RemoteTier | None:
    """Where files of windows go: beside the shard's checkpoints, or, settled ones, to a store of
    their own; None where they stay. Raises: ImportError, ValueError."""
    url, options = objects_place(config)
    if url is None:
        return None
    term = None
    if offsite is not None:
        term = Term(
            offsite.last.term, offsite.has_catalog(), offsite.has_object, offsite.has_catalog
        )
    store = calls.over(open_objects(url, options))
    return RemoteTier(store, disk, config.tiers.local_bytes_max, term)


def objects_place(config: Config) -> tuple[str | None, dict[str, str]]:
    """The store of files of windows, and its options."""
    if config.offsite_url is not None:
        return config.offsite_url, config.offsite_options
    return config.tiers.objects_url, config.tiers.objects_options
