"""Errors of the client, split by what the caller does.

ClientError
├── Refused          the server says no for good: status and stable id; change something
├── Unavailable      no answer, or only "later", within the time given: ask again
├── Undelivered      closed before everything was acked, and there is no spool that keeps it
├── AnswerTooLarge   an answer past `answer_bytes_max`: ask for less
└── Closed           the client was closed
"""


class ClientError(Exception):
    """Root of the tree; raised itself for a spool that cannot be used."""


class Refused(ClientError):
    """A 4xx. `id` is the server's stable id, or empty where somebody else answered."""

    def __init__(self, status: int, id: str, message: str) -> None:
        super().__init__(f"{status}: {message}" + (f" ({id})" if id else ""))
        self.status = status
        self.id = id
        self.message = message


class Unavailable(ClientError):
    """The server did not answer, or said "later" until the time was over."""


class Undelivered(ClientError):
    """`points` were added and never acked, and are lost with the process."""

    def __init__(self, points: int) -> None:
        super().__init__(f"closed with {points} points that were not acked and are in no spool")
        self.points = points


class AnswerTooLarge(ClientError):
    """An answer is longer than the client will hold."""

    def __init__(self, bytes_max: int) -> None:
        super().__init__(f"the answer is longer than answer_bytes_max = {bytes_max}")
        self.bytes_max = bytes_max


class Closed(ClientError):
    """Nothing is taken any more."""
