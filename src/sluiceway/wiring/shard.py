"""The shard and what keeps it alive, opened from the configuration.

Invariant: nothing under the data directory is touched before its lock is held. The write side's
three quarters of `memory_max` are given out here, and nowhere else.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from errno import EEXIST, ENOTDIR
from pathlib import Path
from typing import Any

from sluiceway.clock import Clock
from sluiceway.config import Config
from sluiceway.kernels import Disk, EvaluateServer
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig

MIB = 1 << 20
OURS = {"hot", "journal", "lock"}
UNOWNED = {"keys.toml", "lost+found", "run"}
"""What a fresh data directory may hold already."""
POINT_BYTES = 32
"""A buffered point with its share of runs and copies while a seal is written."""


@dataclass(frozen=True)
class OpenShard:
    """A shard that takes writes and answers the evaluate protocol."""

    hot: HotShard
    evaluate: EvaluateServer
    disk: Disk
    disk_bytes_max: int

    def figures(self) -> dict[str, Any]:
        """The worker's figures and the disk's. May wait for locks and directories: never call it
        on the event loop."""
        return {
            **self.hot.stats(),
            "disk_bytes": self.disk.used_bytes(),
            "disk_bytes_max": self.disk_bytes_max,
            "disk_free_bytes": self.disk.free_bytes(),
        }

    def close(self) -> None:
        self.evaluate.stop()


def open_disk(config: Config) -> Disk:
    """The data directory, locked. Raises: OSError, BackendUnavailable (somebody has it)."""
    check_directory(config.data_dir)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    disk = Disk.real(str(config.data_dir))
    disk.lock()
    return disk


def open_shard(
    config: Config,
    disk: Disk,
    evaluate_socket: str,
    clock: Clock,
    on_unusable: Callable[[Exception], None],
) -> OpenShard:
    """Open or recover. Blocks until acks are possible; the replay goes on behind, and tells
    `on_unusable`, on a thread of its own, when the data cannot be read.

    Raises: Corruption, BackendUnavailable, OSError.
    """
    disk_bytes_max = config.disk_max or disk.used_bytes() + disk.free_bytes()
    hot = HotShard(
        disk,
        shard_options(config, disk_bytes_max),
        hot_config(config, disk_bytes_max),
        clock,
        series_max=config.series_max,
    )
    hot.start(on_unusable)
    Path(evaluate_socket).unlink(missing_ok=True)
    evaluate = EvaluateServer(hot.shard, evaluate_socket, evaluate_options(config))
    evaluate.start()
    return OpenShard(hot, evaluate, disk, disk_bytes_max)


def check_directory(data_dir: Path) -> None:
    """A directory of ours, or one that nobody has put anything into. Raises: OSError."""
    if not data_dir.exists():
        return
    if not data_dir.is_dir():
        raise NotADirectoryError(ENOTDIR, "not a directory", str(data_dir))
    names = {path.name for path in data_dir.iterdir() if not path.name.startswith(".")}
    foreign = names - OURS - UNOWNED
    if foreign and not names & OURS:
        words = f"holds files of something else ({min(foreign)}): choose an empty directory"
        raise FileExistsError(EEXIST, words, str(data_dir))


def write_memory_bytes(config: Config) -> int:
    return config.memory_bytes_max() * 3 // 4


def shard_options(config: Config, disk_bytes_max: int) -> dict[str, Any]:
    memory_bytes = write_memory_bytes(config)
    return {
        # A small disk holds several, so that a checkpoint can give room back.
        "segment_bytes": min(64 * MIB, max(MIB, disk_bytes_max // 16)),
        # The levels of the disk (90 % and 95 %) act before the journal's own limit does.
        "journal_bytes_max": disk_bytes_max,
        "queue_bytes_max": min(64 * MIB, memory_bytes // 16),
        "decoded_bytes_max": min(64 * MIB, memory_bytes // 16),
        "buffer_points_max": max(
            100_000, min(4 * config.seal_points_max, memory_bytes // 4 // POINT_BYTES)
        ),
        "page_cache_bytes_max": min(256 * MIB, memory_bytes // 16),
        "hash_seed": secrets.randbits(63),
    }


def evaluate_options(config: Config) -> dict[str, int]:
    return {
        "query_threads": config.query_threads,
        "query_bytes_max": write_memory_bytes(config) // 4,
        "visibility_wait_max_ms": config.visibility_wait_max_ms,
        "series_max": config.query.series_max,
        "points_max": config.query.points_max,
        "bytes_max": config.query.result_bytes_max,
        "timeout_max_ms": int(config.query.timeout_s_max * 1000),
    }


def hot_config(config: Config, disk_bytes_max: int) -> HotConfig:
    return HotConfig(
        seal_points_max=config.seal_points_max,
        seal_journal_bytes_max=config.seal_journal_bytes_max,
        seal_s_max=config.seal_s_max,
        retention_ms=config.retention_raw_ms,
        disk_bytes_max=disk_bytes_max,
        memory_bytes_max=write_memory_bytes(config),
    )
