"""Settings of a journal on Kafka: `[kafka]` in the configuration file, SLUICEWAY_KAFKA__... in
the environment.

Invariant: what durability rests on (acks, idempotence, commits) is not a setting.
"""

from dataclasses import dataclass, field
from typing import Any

from sluiceway.journal.security import KafkaSecurity

RECORD_BYTES_MIN = 900_000
RECORD_BYTES_MAX = 32 << 20
OUTBOX_BYTES_MIN = 1 << 20
OURS = frozenset(
    (
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "transactional.id",
        "bootstrap.servers",
        "metadata.broker.list",
        "partitioner",
        "check.crcs",
        "group.id",
        "group.instance.id",
        "partition.assignment.strategy",
        "session.timeout.ms",
    )
)
"""Settings of the client that are not for the operator."""


@dataclass(frozen=True)
class KafkaConfig:
    """Which topic is the journal, and how it is written."""

    brokers: str = ""
    """`host:port`, separated by commas."""
    topic: str = "sluiceway-metrics"
    """Made at the start where it is absent."""
    partitions: int = 1
    """Of the topic; never changed while a data directory lives."""
    partition: int = 0
    """The one that this process' shard serves; its gateway writes to all of them."""
    group: str = ""
    """The consumer group that gives out the partitions; a shard with one has no `partition`."""
    member: str = ""
    """This process' name in the group, its own for life; host and port of its gate unless set."""
    session_s: float = 6.0
    """Without a sign of a member, until the group gives its partitions to others."""
    member_partitions_max: int = 2
    """That one member serves; memory and disk are shared out among so many."""
    hand_over_s_max: float = 60.0
    """That a shard which was given to another member goes on until that one answers."""
    replication: int = 3
    """Of a topic that is made here; with 3, two replicas must have a record before it is acked."""
    adopt: bool = False
    """Bind a data directory that was restored or taken over, and says of no log, to this one."""
    compression: str = "lz4"
    record_bytes_max: int = 900_000
    linger_ms: float = 1.0
    """That records wait for others on their way to one broker."""
    delivery_s_max: float = 30.0
    """Until a record that no broker has acked is given up; its sender was told long before."""
    in_flight_bytes_max: int = 64 << 20
    """Sent and not acked yet; past it requests are refused with Retry-After."""
    outbox_bytes_max: int = 1 << 30
    """Of requests that are acked from the local disk while no broker answers; 0: none are."""
    outbox_after_s: float = 2.0
    """Without an ack by the brokers, until requests go into the outbox."""
    spread: list[tuple[str, str, int]] = field(default_factory=list)
    """Metrics too hot for one partition: tenant, metric, over how many partitions."""
    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    settings: dict[str, str] = field(default_factory=dict)
    """Of the client library, by its names: time-outs, what `security` does not know."""

    def check(self) -> None:
        """Raises: ValueError."""
        if not 1 <= self.partitions <= 65_535:
            raise ValueError("kafka.partitions: 1 to 65,535")
        if not 0 <= self.partition < self.partitions:
            raise ValueError("kafka.partition: one of the topic's")
        if self.replication < 1:
            raise ValueError("kafka.replication: at least 1")
        if not RECORD_BYTES_MIN <= self.record_bytes_max <= RECORD_BYTES_MAX:
            raise ValueError("kafka.record_bytes_max: 900,000 to 33,554,432")
        if self.linger_ms < 0:
            raise ValueError("kafka.linger_ms: not below 0")
        if self.outbox_bytes_max != 0 and self.outbox_bytes_max < OUTBOX_BYTES_MIN:
            raise ValueError("kafka.outbox_bytes_max: 0, or at least 1 MiB")
        if self.member_partitions_max < 1:
            raise ValueError("kafka.member_partitions_max: at least 1")
        above_0 = ("delivery_s_max", "in_flight_bytes_max", "outbox_after_s", "session_s")
        for name in (*above_0, "hand_over_s_max"):
            if getattr(self, name) <= 0:
                raise ValueError(f"kafka.{name}: above 0")
        self.security.check(self.brokers)
        for name in self.settings:
            if name in OURS or name.endswith("_cb"):
                raise ValueError(f"kafka.settings: {name} is not for you to set")


def own_settings(config: KafkaConfig) -> dict[str, Any]:
    """What producers, consumers and admin clients all begin with."""
    return {
        "log_level": 2,  # what is wrong shows in errors that are handled, not in lines on stderr
        "reconnect.backoff.max.ms": 2_000,
        **config.security.settings(),
        **config.settings,
        "bootstrap.servers": config.brokers,
    }
