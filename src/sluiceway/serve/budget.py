"""The configured budgets, given out to the parts.

Invariant: the write side's three quarters of `memory_max` are shared out here and nowhere else.
"""

import secrets
from typing import TYPE_CHECKING, Any

from sluiceway.config import Config
from sluiceway.kernels import Disk
from sluiceway.query.limits import QueryConfig
from sluiceway.tiers.hot import HotConfig

if TYPE_CHECKING:
    from sluiceway.query.promql.engine import EngineLimits

MIB = 1 << 20
POINT_BYTES = 32
"""A buffered point with its share of runs and copies while a seal is written."""
CELL_WORK_BYTES = 64
"""What it may come to while it is worked on: the copies that operators make."""
ANSWER_COPIES = 4
"""An answer is held twice while it is put together, beside the columns it is written from."""
TIER_FILES_MAX = 2_048
"""Warm and cold files that the read side keeps open."""
TIER_FILES_BYTES_MAX = 32 * MIB
"""What they may hold in memory: Parquet footers, and 40 bytes for each 1,024 series of theirs."""
READ_BASE_BYTES = 96 * MIB
"""What of the read side's share interpreter, libraries and threads take."""
SERIES_BYTES = 1_200
"""What an active series may cost at most, with its share of everything else in memory."""


def write_memory_bytes(config: Config) -> int:
    return config.memory_bytes_max() * 3 // 4


def read_memory_bytes(config: Config) -> int:
    return config.memory_bytes_max() // 4


def disk_bytes_max(config: Config, disk: Disk) -> int:
    """Bytes that the data directory may come to."""
    return config.disk_max or disk.used_bytes() + disk.free_bytes()


def query_log_bytes_max(config: Config) -> int:
    """Bytes of the query log: little of a disk's budget that is little."""
    own_max = config.query.log_bytes_max
    return min(own_max, config.disk_max // 64) if config.disk_max else own_max


def series_cap(config: Config) -> int:
    """Series that memory has room for. Counted where records are applied, so it holds however many
    wait in the journal, and again in a replay."""
    return min(config.series_max, write_memory_bytes(config) // SERIES_BYTES)


def shard_options(config: Config, disk_bytes_max: int) -> dict[str, Any]:
    memory_bytes = write_memory_bytes(config)
    return {
        # They are reserved whole, so on a small disk they are small: a checkpoint can give room
        # back, and none takes the used bytes past both levels of the disk at once.
        "segment_bytes": min(64 * MIB, max(MIB, disk_bytes_max // 64)),
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


def engine_limits(limits: QueryConfig, memory_bytes_max: int) -> "EngineLimits":
    # Imported here: the write side needs this file, and not the engine.
    from sluiceway.query.promql.bounds import CELL_BYTES
    from sluiceway.query.promql.engine import EngineLimits

    room = max(memory_bytes_max - READ_BASE_BYTES, MIB)
    cells_max = min(limits.result_bytes_max // CELL_BYTES, room // CELL_WORK_BYTES)
    return EngineLimits(
        series_max=limits.series_max,
        points_max=limits.points_max,
        cost_max=limits.cost_max,
        bytes_max=cells_max * CELL_BYTES,
        cells_max=cells_max,
        answer_bytes_max=min(limits.result_bytes_max, room // ANSWER_COPIES),
        lookback_ms=limits.lookback_ms,
    )


def tier_options(limits: QueryConfig, memory_bytes_max: int, query_threads: int) -> dict[str, int]:
    """Bounds of reading warm and cold files: half of what the read side has over its base; the
    engine's columns and the answer have the rest."""
    room = max(memory_bytes_max - READ_BASE_BYTES, MIB) // 2
    return {
        "query_threads": query_threads,
        "query_bytes_max": room,
        "bytes_max": room,
        "files_max": TIER_FILES_MAX,
        "files_bytes_max": min(TIER_FILES_BYTES_MAX, memory_bytes_max // 16),
        "series_max": limits.series_max,
        "points_max": limits.points_max,
        "cost_max": limits.cost_max,
    }
