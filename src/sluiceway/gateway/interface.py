"""What the gateway needs from below: a shard to write to.

Invariant: the gateway acks a request only after `drain_acks` has passed its ticket.
"""

from typing import Protocol


class Receipt(Protocol):
    """What one request held, as the decoder judged it. Immutable."""

    @property
    def ticket(self) -> int: ...
    @property
    def points_received(self) -> int: ...
    @property
    def rejected(self) -> list[tuple[str, int]]:
        """(reason, count); their sum is the points refused."""
        ...

    @property
    def first_error(self) -> str | None: ...
    @property
    def samples(self) -> int:
        """Good float samples; `histograms` and `exemplars` likewise."""
        ...

    @property
    def histograms(self) -> int: ...
    @property
    def exemplars(self) -> int: ...


class WriteShard(Protocol):
    """The write path of a shard. Every method may be called from any thread."""

    def receive(
        self, body: bytes, tenant: str, format: int, encoding: int, received_ms: int
    ) -> Receipt:
        """Decode, validate, queue for the journal; takes CPU, never waits for the disk.

        A return does not imply durability. Raises: TenantFault, Overloaded.
        """
        ...

    def ack_fd(self) -> int:
        """A non-blocking eventfd, readable when `drain_acks` has something to say."""
        ...

    def drain_acks(self) -> tuple[int, list[tuple[int, int, str]]]:
        """(decided, failures): tickets < `decided` are durable but for those in `failures`
        = [(first, last, error)], both ends inclusive, each told once. Resets the eventfd.
        Never blocks."""
        ...
