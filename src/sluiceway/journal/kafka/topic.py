"""The topic: made where it is absent, looked at before it is trusted.

Invariant: what it is (cluster, id, partitions) is asked of the brokers, never assumed.
"""

from collections import deque
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import KafkaError, NewTopic

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.journal.binding import Binding
from sluiceway.journal.config import KafkaConfig, own_settings

CALL_S_MAX = 10.0


def open_topic(config: KafkaConfig, partition: int) -> Binding:
    """The topic as it is, made if absent. Blocks. Raises: BackendUnavailable, Corruption."""
    admin, heard = _client(config)
    try:
        cluster_id = admin.describe_cluster(request_timeout=CALL_S_MAX).result().cluster_id
        found = admin.list_topics(timeout=CALL_S_MAX).topics
        if config.topic not in found:
            _make(admin, config, config.topic, config.partitions, records_settings(config))
        asked = TopicCollection([config.topic])
        told = admin.describe_topics(asked, request_timeout=CALL_S_MAX)[config.topic].result()
    except KafkaException as error:
        raise BackendUnavailable(_why(error, admin, heard)) from error
    held = len(told.partitions)
    if held != config.partitions:
        words = f"topic {config.topic} has {held} partitions, kafka.partitions says"
        raise Corruption(f"{words} {config.partitions}")
    return Binding(1, str(cluster_id), config.topic, str(told.topic_id), partition, held)


def owners_topic(config: KafkaConfig) -> str:
    """Beside the records' topic: who answers for which partition."""
    return f"{config.topic}.owners"


def make_owners_topic(config: KafkaConfig) -> None:
    """Made if absent. Blocks. Raises: BackendUnavailable."""
    (admin, heard), topic = _client(config), owners_topic(config)
    try:
        if topic not in admin.list_topics(timeout=CALL_S_MAX).topics:
            _make(admin, config, topic, 1, {"cleanup.policy": "compact"})
    except KafkaException as error:
        raise BackendUnavailable(_why(error, admin, heard)) from error


def _client(config: KafkaConfig) -> tuple[AdminClient, deque[str]]:
    """And what it last said of a broker: a call that nobody answered says only that it was late."""
    heard: deque[str] = deque(maxlen=1)

    def note(error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            heard.append(error.str().partition(" (after ")[0])

    settings: dict[str, Any] = {**own_settings(config), "error_cb": note}
    return AdminClient(settings), heard


def _why(error: KafkaException, admin: AdminClient, heard: deque[str]) -> str:
    admin.poll(0)  # what it says comes with this
    return ": ".join(["kafka", error.args[0].str(), *heard])


def records_settings(config: KafkaConfig) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "max.message.bytes": str(config.record_bytes_max + 65_536),
    }


def _make(
    admin: AdminClient, config: KafkaConfig, topic: str, partitions: int, settings: dict[str, str]
) -> None:
    in_sync_min = 2 if config.replication >= 3 else 1
    settings = {**settings, "min.insync.replicas": str(in_sync_min)}
    new = NewTopic(topic, partitions, config.replication, config=settings)
    try:
        admin.create_topics([new], request_timeout=CALL_S_MAX)[topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
