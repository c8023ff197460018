"""The writer's limits.

Invariant: whatever waits has a bound, and the bound has room for a few batches.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sluiceway.client.encode import Compression
from sluiceway.client.retry import RetryLimits

WhenFull = Literal["wait", "newest", "oldest"]
BATCHES_KEPT_MIN = 4


@dataclass(frozen=True)
class WriterConfig:
    """Limits. A batch is closed by whichever of points, bytes (uncompressed) and age is first."""

    batch_points_max: int = 5_000
    batch_bytes_max: int = 1 << 20
    batch_s_max: float = 1.0
    queue_bytes_max: int = 64 << 20
    """Of closed batches in memory, without a spool."""
    spool_directory: Path | None = None
    spool_bytes_max: int = 1 << 30
    spool_sync: bool = False
    """Sync each batch: the spool outlives a power cut too, not only the process."""
    when_full: WhenFull = "newest"
    """What goes where there is no room: `newest`, `oldest`; with `wait` none, but `add` blocks."""
    compression: Compression = "auto"
    """`auto`: zstd where the package `zstandard` is installed, else snappy that saves nothing."""
    request_s_max: float = 60.0
    retry: RetryLimits = field(default_factory=RetryLimits)
    close_s_max: float = 10.0

    def __post_init__(self) -> None:
        room = self.spool_bytes_max if self.spool_directory else self.queue_bytes_max
        if not 0 < self.batch_bytes_max <= 8 << 20 or self.batch_points_max < 1:
            raise ValueError("batch_points_max is at least 1, batch_bytes_max 1 to 8 MiB")
        if room < BATCHES_KEPT_MIN * self.batch_bytes_max:
            raise ValueError(f"no room for {BATCHES_KEPT_MIN} batches of batch_bytes_max")
