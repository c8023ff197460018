"""The client: `Writer` sends points, `Reader` asks. docs/client.md tells how.

Invariant: it imports nothing of the server, and nothing outside the standard library but, where it
is installed, `zstandard`.
"""

from sluiceway.client.config import WriterConfig
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
from sluiceway.client.retry import RetryLimits
from sluiceway.client.writer import Writer

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
