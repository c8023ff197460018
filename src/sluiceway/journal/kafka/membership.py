"""Which partitions this process has, by Kafka's consumer group: static members, cooperative.

Invariant: the group says who should have a partition, never who has it: that is the fence's
(docs/formats/offsite.md). Nothing is read through the group, and nothing is committed to it.
"""

import threading
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable
from sluiceway.journal.config import KafkaConfig, own_settings
from sluiceway.journal.kafka.topic import open_topic

POLL_S = 0.1
RETRY_S = 1.0
HEARTBEAT_MS = 1_000
DOUBT_S = 3.0
"""After this process stood still for longer than half a session: until it has heard from the group
again, it may think that it has what went to others long ago."""
CALL_S_MAX = 5.0
NO_PARTITION = -1
Partitions = frozenset[int]
log = structlog.get_logger()


class Membership:
    """A member of the group; a thread of its own."""

    def __init__(
        self, config: KafkaConfig, member: str, clock: Clock, changed: Callable[[], None]
    ) -> None:
        """`changed` is called on our thread when `assigned` says another thing."""
        self._config = config
        self._member = member
        self._clock = clock
        self._changed = changed
        self._assigned: Partitions | None = None
        self._doubtful_until_s = 0.0
        self._leaving = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluiceway-group", daemon=True)
        self.rounds = 0
        """Assignments heard so far."""
        self.failure = "the group is not joined yet"

    def start(self) -> None:
        self._thread.start()

    def assigned(self) -> Partitions | None:
        """The partitions that are ours by the group; None while nobody can say."""
        doubtful = self._clock.monotonic_s() < self._doubtful_until_s
        return None if doubtful else self._assigned

    def leave(self) -> None:
        """Have the group give our partitions to others, a session from now, until `join`."""
        self._leaving.set()

    def join(self) -> None:
        """Take part again."""
        self._leaving.clear()

    def stop(self) -> None:
        """Blocks until the thread has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def others(self) -> int:
        """Further members. Blocks. Raises: BackendUnavailable."""
        group = self._config.group
        try:
            admin = AdminClient(own_settings(self._config))
            told = admin.describe_consumer_groups([group], request_timeout=CALL_S_MAX)
            members = told[group].result().members
        except KafkaException as error:
            raise BackendUnavailable(f"kafka: {error}") from error
        return sum(1 for held in members if held.group_instance_id != self._member)

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                open_topic(self._config, NO_PARTITION)
                if self._leaving.is_set():
                    self._stay_away()
                else:
                    self._take_part()
            except Exception as error:
                # A topic that is not ours, brokers that are away, a member of our name elsewhere.
                if str(error) != self.failure:
                    log.warning("group_not_joined", error=str(error))
                self.failure = str(error)
                self._stopping.wait(RETRY_S)

    def _take_part(self) -> None:
        """Until it is to leave, or stops. The group waits for a static member that closes for a
        session: so long its partitions are nobody else's, and who had them goes on."""
        consumer = Consumer(settings(self._config, self._member))
        try:
            consumer.subscribe(
                [self._config.topic],
                on_assign=self._given,
                on_revoke=self._taken,
                on_lost=self._lost,
            )
            seen_s = self._clock.monotonic_s()
            while not (self._stopping.is_set() or self._leaving.is_set()):
                message = consumer.poll(POLL_S)
                error = None if message is None else message.error()
                if error is not None and error.fatal():
                    self._assigned = None
                    raise KafkaException(error)
                now_s = self._clock.monotonic_s()
                if now_s - seen_s > self._config.session_s / 2:
                    log.warning("member_stood_still", seconds=round(now_s - seen_s, 1))
                    self._doubtful_until_s = now_s + DOUBT_S
                seen_s = now_s
        finally:
            consumer.close()

    def _stay_away(self) -> None:
        self._set(frozenset())
        while self._leaving.is_set() and not self._stopping.is_set():
            self._stopping.wait(POLL_S)

    def _given(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        for place in places:
            place.offset = OFFSET_END
        consumer.incremental_assign(places)
        if places:
            consumer.pause(places)
        held = self._assigned or frozenset()
        self.failure = ""
        self.rounds += 1
        self._doubtful_until_s = 0.0
        self._set(held | self._ours(places))

    def _taken(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.incremental_unassign(places)
        closing = self._stopping.is_set() or self._leaving.is_set()
        if self._assigned is not None and not closing:
            self._set(self._assigned - self._ours(places))

    def _lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Others may have them by now, or nobody while the brokers are away: the fence tells."""
        consumer.incremental_unassign(places)
        log.warning("group_lost", partitions=sorted(self._ours(places)))
        self.failure = "the group does not know us any more"
        self._assigned = None
        self._changed()

    def _ours(self, places: list[TopicPartition]) -> Partitions:
        topic = self._config.topic
        return frozenset(place.partition for place in places if place.topic == topic)

    def _set(self, assigned: Partitions) -> None:
        if assigned != self._assigned:
            log.info("partitions_assigned", partitions=sorted(assigned))
        self._assigned = assigned
        self._changed()


def settings(config: KafkaConfig, member: str) -> dict[str, Any]:
    return {
        **own_settings(config),
        "group.id": config.group,
        "group.instance.id": member,
        "client.id": member,
        "session.timeout.ms": int(config.session_s * 1000),
        "heartbeat.interval.ms": HEARTBEAT_MS,
        # A round of the group waits so long for members that do not answer, not five minutes.
        "max.poll.interval.ms": int(config.session_s * 1000),
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "latest",
    }
