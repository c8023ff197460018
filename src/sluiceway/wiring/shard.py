"""The shard and what keeps it alive, opened from the configuration.

Invariant: nothing under the data directory is touched before its lock is held.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluiceway.clock import Clock
from sluiceway.config import Config
from sluiceway.kernels import Disk, EvaluateServer, Shard
from sluiceway.processor.interface import ShardWorker
from sluiceway.processor.worker import Worker
from sluiceway.tiers.hot import HotConfig


@dataclass(frozen=True)
class OpenShard:
    """A shard that takes writes and answers the evaluate protocol."""

    shard: Shard
    worker: ShardWorker
    evaluate: EvaluateServer

    def close(self) -> None:
        self.evaluate.stop()


def open_disk(config: Config) -> Disk:
    """The data directory, locked. Raises: OSError, BackendUnavailable (somebody has it)."""
    Path(config.data_dir).mkdir(parents=True, exist_ok=True)
    disk = Disk.real(str(config.data_dir))
    disk.lock()
    return disk


def open_shard(config: Config, disk: Disk, evaluate_socket: str, clock: Clock) -> OpenShard:
    """Open or recover. Blocks until acks are possible; the replay goes on behind.

    Raises: Corruption, BackendUnavailable.
    """
    shard = Shard(disk, shard_options(config))
    worker = Worker(shard, disk, hot_config(config), clock)
    worker.start()
    evaluate = EvaluateServer(shard, evaluate_socket, evaluate_options(config))
    evaluate.start()
    return OpenShard(shard, worker, evaluate)


def shard_options(config: Config) -> dict[str, Any]:
    return {
        "memory_bytes_max": config.memory_bytes_max() * 3 // 4,
        "series_max": config.series_max,
        "disk_bytes_max": config.disk_max,
        "future_max_ms": config.future_max_ms,
        "visibility_wait_max_ms": config.visibility_wait_max_ms,
    }


def evaluate_options(config: Config) -> dict[str, Any]:
    return {
        "query_threads": config.query_threads,
        "query_bytes_max": config.memory_bytes_max() * 3 // 16,
        "visibility_wait_max_ms": config.visibility_wait_max_ms,
        "series_max": config.query.series_max,
        "points_max": config.query.points_max,
    }


def hot_config(config: Config) -> HotConfig:
    return HotConfig(
        seal_points_max=config.seal_points_max,
        seal_journal_bytes_max=config.seal_journal_bytes_max,
        seal_s_max=config.seal_s_max,
        retention_ms=config.retention_raw_ms,
    )
