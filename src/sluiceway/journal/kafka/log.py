"""The journal on Kafka as one process uses it: the shard's feed and the gateway's writer, together.

Invariant: the writer sends nothing before the feed knows that the log is this directory's.
"""

import contextlib
import secrets
from collections.abc import Callable
from typing import Any

from sluiceway.clock import Clock
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka.feed import KafkaFeed
from sluiceway.journal.kafka.outbox import Outbox
from sluiceway.journal.kafka.writer import KafkaWriter
from sluiceway.kernels import Disk, Shard


class KafkaLog:
    """Opened once; closed by the stack that `open_writer` is given, and by `feed.stop`."""

    def __init__(
        self,
        config: KafkaConfig,
        disk: Disk,
        clock: Clock,
        drain_s_max: float,
        fetched: Callable[[int], None] | None = None,
    ) -> None:
        """`fetched` is told of bytes that came from the brokers. Raises: Corruption, OSError."""
        self._config = config
        self._disk = disk
        self._clock = clock
        self._drain_s_max = drain_s_max
        self.feed = KafkaFeed(config, disk, config.partition, fetched)
        self._writer: KafkaWriter | None = None

    def open_writer(self, stack: contextlib.AsyncExitStack, shard: Shard) -> KafkaWriter:
        """The gateway's shard. Blocks while the outbox is opened. Raises: BackendUnavailable,
        Corruption."""
        config, outbox = self._config, None
        if config.outbox_bytes_max > 0:
            salt = secrets.randbits(63)
            outbox = Outbox(self._disk, config.outbox_bytes_max, salt, self._clock)
        self._writer = KafkaWriter(shard, config, outbox, self._clock, config.partition)
        stack.callback(self._writer.close, self._drain_s_max / 4)
        self.feed.on_bound(self._writer.bound)
        return self._writer

    def figures(self) -> dict[str, Any]:
        """For /metrics and `sluiceway status`."""
        written = {} if self._writer is None else self._writer.figures()
        return {**self.feed.figures(), **written, "log_failure": self.feed.failure}
