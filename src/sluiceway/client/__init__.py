"""The client: `Writer` sends points, `Reader` asks. docs/client.md tells how.

Invariant: it imports nothing of the server, and nothing outside the standard library but, where it
is installed, `zstandard`.
"""

from sluiceway.client.delivery import RetryLimits
from sluiceway.client.encode import Series
from sluiceway.client.errors import (
    AnswerTooLarge,
    ClientError,
    Closed,
    Refused,
    Unavailable,
    Undelivered,
)
from sluiceway.client.figures import Statistics
from sluiceway.client.reader import Reader, ReaderConfig
from sluiceway.client.writer import Writer, WriterConfig

__all__ = [
    "AnswerTooLarge",
    "ClientError",
    "Closed",
    "Reader",
    "ReaderConfig",
    "Refused",
    "RetryLimits",
    "Series",
    "Statistics",
    "Unavailable",
    "Undelivered",
    "Writer",
    "WriterConfig",
]
