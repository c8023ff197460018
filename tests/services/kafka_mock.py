"""librdkafka's own mock of a cluster: brokers in this process that answer with the errors they are
told to. It forgets everything when it ends: for errors, never as proof of durability.
"""

import ctypes
from pathlib import Path
from types import TracebackType

import confluent_kafka

PRODUCE, FETCH, METADATA = 0, 1, 3
"""Kinds of requests."""
NOT_LEADER, TIMED_OUT, TOO_FEW_REPLICAS = 6, 7, 19
"""Errors that a broker answers with."""


def library() -> ctypes.CDLL:
    """The very library that the client has loaded."""
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    (path,) = beside.glob("librdkafka-*.so*")
    loaded = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(loaded, name).restype = ctypes.c_void_p
    loaded.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return loaded


class MockKafka:
    """A cluster with one topic."""

    def __init__(self, topic: str, partitions: int = 1, brokers: int = 3) -> None:
        self._library, self._brokers = library(), brokers
        words = ctypes.create_string_buffer(512)
        configuration = ctypes.c_void_p(self._library.rd_kafka_conf_new())
        handle = self._library.rd_kafka_new(0, configuration, words, 512)
        assert handle, words.value
        self._handle = ctypes.c_void_p(handle)
        self._cluster = ctypes.c_void_p(
            self._library.rd_kafka_mock_cluster_new(self._handle, brokers)
        )
        self.addresses = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, brokers)

    def answer(self, request: int, *errors: int) -> None:
        """Each broker answers the next requests of this kind with these errors, in turn."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), codes
        )

    def set_down(self, down: bool) -> None:
        """All brokers, at once: connections are closed and refused."""
        name = "rd_kafka_mock_broker_set_down" if down else "rd_kafka_mock_broker_set_up"
        for number in range(1, self._brokers + 1):
            getattr(self._library, name)(self._cluster, number)

    def __enter__(self) -> "MockKafka":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)
