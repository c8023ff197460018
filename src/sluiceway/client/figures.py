"""What became of the points that a client was given.

Invariant, at any moment: `points_added + points_found` = acked + rejected + refused + dropped +
damaged + waiting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the client was made. Points unless the name says otherwise."""

    points_added: int = 0
    points_found: int = 0
    """In the spool when it was opened."""
    points_acked: int = 0
    """Durable at the server."""
    points_rejected: int = 0
    """Refused one by one, while the rest of their batch was taken."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """The same by the server's reason."""
    points_refused: int = 0
    """In batches that the server refused as a whole."""
    points_dropped: int = 0
    """That found no room, or made it."""
    points_damaged: int = 0
    """Whose batch the spool's disk did not give back."""
    points_waiting: int = 0
    """Added, and not decided yet."""
    batches_acked: int = 0
    batches_waiting: int = 0
    requests: int = 0
    retries: int = 0
    bytes_acked: int = 0
    """Of bodies as they were sent."""
    bytes_waiting: int = 0
    spool_bytes: int = 0
    spool_torn_bytes: int = 0
    spool_write_errors: int = 0
    last_error: str = ""
    """Of the last request that failed; empty once one was taken again."""
