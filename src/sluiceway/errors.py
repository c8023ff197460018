"""Errors of Sluiceway, split by who must act.

SluicewayError
├── TenantFault          the client must change something: 4xx, a stable id, the limit named
├── Overloaded           too much to do right now: 429, 503 with Retry-After; the only backpressure
├── BackendUnavailable   a disk, socket or service failed: retry later
├── DeadlineExceeded     a query passed its deadline: 503 `timeout`
├── Cancelled            the asker is gone: 499
└── Corruption           bytes at rest are not what was written: quarantined and reported
"""


class SluicewayError(Exception):
    """Root of the tree; never raised itself."""

    exit_status = 1
    """Of a process that it ends."""


class TenantFault(SluicewayError):
    """The client must change something. `id` is stable and immutable; `message` names the limit."""

    def __init__(self, status: int, id: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.id = id
        self.message = message


class Overloaded(SluicewayError):
    """Too much to do; come back after `retry_after_s` (jitter is added at the door).

    `status` is 503, or 429 for a tenant past a limit that wants it so; `id` is stable.
    """

    def __init__(
        self,
        retry_after_s: float,
        message: str,
        status: int = 503,
        id: str = "sluiceway-overloaded",
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.message = message
        self.status = status
        self.id = id


class BackendUnavailable(SluicewayError):
    """A backend failed; the caller may retry."""


class DeadlineExceeded(SluicewayError):
    """A query passed its deadline."""


class Cancelled(SluicewayError):
    """The asker is gone; nobody waits for the answer."""


class Corruption(SluicewayError):
    """Bytes at rest are not what was written."""
