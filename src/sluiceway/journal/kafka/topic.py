"""The topic: made where it is absent, looked at before it is trusted.

Invariant: what it is (cluster, id, partitions) is asked of the brokers, never assumed.
"""

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import KafkaError, NewTopic

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.journal.binding import Binding
from sluiceway.journal.config import KafkaConfig, own_settings

CALL_S_MAX = 10.0


def open_topic(config: KafkaConfig, partition: int) -> Binding:
    """The topic as it is, made if absent. Blocks. Raises: BackendUnavailable, Corruption."""
    admin = AdminClient(own_settings(config))
    try:
        cluster_id = admin.describe_cluster(request_timeout=CALL_S_MAX).result().cluster_id
        found = admin.list_topics(timeout=CALL_S_MAX).topics
        if config.topic not in found:
            _make(admin, config)
        asked = TopicCollection([config.topic])
        told = admin.describe_topics(asked, request_timeout=CALL_S_MAX)[config.topic].result()
    except KafkaException as error:
        raise BackendUnavailable(f"kafka: {error}") from error
    held = len(told.partitions)
    if held != config.partitions:
        words = f"topic {config.topic} has {held} partitions, kafka.partitions says"
        raise Corruption(f"{words} {config.partitions}")
    return Binding(1, str(cluster_id), config.topic, str(told.topic_id), partition, held)


def _make(admin: AdminClient, config: KafkaConfig) -> None:
    in_sync_min = 2 if config.replication >= 3 else 1
    new = NewTopic(
        config.topic,
        config.partitions,
        config.replication,
        config={
            "cleanup.policy": "delete",
            "min.insync.replicas": str(in_sync_min),
            "max.message.bytes": str(config.record_bytes_max + 65_536),
        },
    )
    try:
        admin.create_topics([new], request_timeout=CALL_S_MAX)[config.topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
