"""Which log a data directory's sequences are of.

Invariant: they are of its own journal, or offsets of one partition of one topic, for ever; another
topic by the same name is refused before a record of it is applied (docs/formats/kafka.md).
"""

import msgspec

from sluiceway.errors import Corruption
from sluiceway.kernels import Disk

DIRECTORY = "journal"
BINDING = "journal/kafka.json"
OWN_JOURNAL = "journal/metrics"


class Binding(msgspec.Struct, frozen=True):
    """Which log a data directory's sequences are of."""

    version: int
    cluster_id: str
    topic: str
    topic_id: str
    partition: int
    partitions: int


def held_binding(disk: Disk) -> Binding | None:
    """What the directory is bound to. Raises: Corruption."""
    if BINDING.removeprefix(f"{DIRECTORY}/") not in disk.list(DIRECTORY):
        return None
    try:
        binding = msgspec.json.decode(disk.read(BINDING), type=Binding)
    except msgspec.MsgspecError as error:
        raise Corruption(f"{BINDING}: {error}") from error
    if binding.version != 1:
        raise Corruption(f"{BINDING}: version {binding.version} is newer than this build")
    return binding


def refuse_foreign(disk: Disk) -> None:
    """For an embedded journal. Raises: Corruption where the directory is Kafka's."""
    if held_binding(disk) is not None:
        words = "this directory's records are offsets of a Kafka topic"
        raise Corruption(f"{words}: say journal = kafka, or choose another directory")


def bind(disk: Disk, binding: Binding, next_sequence: int, adopt: bool = False) -> None:
    """Bind the directory, or see that it is bound to this very log; with `adopt`, one that stands
    at a sequence and says nothing is taken to be. Raises: Corruption."""
    held = held_binding(disk)
    if held is None:
        if (next_sequence > 0 and not adopt) or disk.list(OWN_JOURNAL):
            words = "this directory was filled from an embedded journal"
            raise Corruption(f"{words}: a journal on Kafka needs one of its own")
        disk.create_directory(DIRECTORY)
        disk.write_new(BINDING, msgspec.json.encode(binding))
    elif held != binding:
        raise Corruption(f"this directory belongs to {held}, not to {binding}")
