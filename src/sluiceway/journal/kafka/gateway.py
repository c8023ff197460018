"""The journal on Kafka as a process without a shard uses it: a writer to all partitions.

Invariant: nothing is sent before the topic was found to be the one that this directory's outbox
is for; until then requests wait in the outbox. A topic that is not ours makes it unready: what
waits then goes nowhere until somebody sets the settings right.
"""

import contextlib
import secrets
import threading

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.journal.binding import bind
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka.outbox import Outbox
from sluiceway.journal.kafka.topic import open_topic
from sluiceway.journal.kafka.writer import KafkaWriter
from sluiceway.kernels import Disk, Shard

NO_PARTITION = -1
"""Of a binding: the directory holds an outbox alone."""
RETRY_S = 1.0
log = structlog.get_logger()


class KafkaGateway:
    """Opened once; closed by the stack that it is given. `shard` decodes and keeps nothing."""

    def __init__(
        self,
        stack: contextlib.AsyncExitStack,
        config: KafkaConfig,
        disk: Disk,
        shard: Shard,
        clock: Clock,
        drain_s_max: float,
    ) -> None:
        """Blocks while the outbox is opened. Raises: BackendUnavailable, Corruption, OSError."""
        self._config = config
        self._disk = disk
        self._stopping = threading.Event()
        self._found = False
        self._foreign = False
        self.failure = ""
        outbox = None
        if config.outbox_bytes_max > 0:
            outbox = Outbox(disk, config.outbox_bytes_max, secrets.randbits(63), clock)
        self.writer = KafkaWriter(shard, config, outbox, clock, NO_PARTITION)
        stack.callback(self.writer.close, drain_s_max / 4)
        self._thread = threading.Thread(target=self._find, name="sluiceway-topic", daemon=True)
        self._thread.start()
        stack.callback(self._stopping.set)

    def missing(self) -> str:
        """What keeps requests from being acked; empty where nothing does."""
        if self._found or (self._config.outbox_bytes_max > 0 and not self._foreign):
            return ""
        return self.failure or "the topic is looked for"

    def _find(self) -> None:
        """Until the topic is there; one that is not ours is never written to."""
        while not self._stopping.is_set():
            try:
                bind(self._disk, open_topic(self._config, NO_PARTITION), 0)
            except (BackendUnavailable, OSError, Corruption) as error:
                if str(error) != self.failure:
                    log.error("topic_not_found", error=str(error))
                self.failure = str(error)
                self._foreign = isinstance(error, Corruption)
                self._stopping.wait(RETRY_S)
                continue
            self._found = True
            self.failure = ""
            self.writer.bound()
            return
