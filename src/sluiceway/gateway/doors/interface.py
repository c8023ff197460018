"""What a door is: a protocol's way in, told apart by path and headers.

Invariant: a door words answers and names payloads; it never looks into a body.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sluiceway.gateway.interface import Receipt

Headers = Mapping[bytes, bytes]
CLOSE = ((b"connection", b"close"),)
"""A header: nothing more is read on this connection."""


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class Payload:
    """Layout and compression of a body, as codes of the record format."""

    format: int
    encoding: int


@dataclass(frozen=True)
class Refusal:
    """A request that was not taken: the status, a stable id, words, and when to come back."""

    status: int
    id: str
    message: str
    retry_after_s: int | None = None


class Door(Protocol):
    """One protocol. Methods never block."""

    name: str

    def payload(self, headers: Headers) -> Payload:
        """What the body will be. Raises: TenantFault 415."""
        ...

    def accepted(self, payload: Payload, receipt: Receipt) -> Answer:
        """The answer once the good rows are durable; partly refused rows are told here."""
        ...

    def refused(self, headers: Headers, refusal: Refusal) -> Answer:
        """The answer when nothing was taken."""
        ...


def retry_headers(refusal: Refusal) -> tuple[tuple[bytes, bytes], ...]:
    if refusal.retry_after_s is None:
        return ()
    return ((b"retry-after", b"%d" % refusal.retry_after_s),)


def describe_rejected(receipt: Receipt) -> str:
    """The refused points of a request in one line."""
    refused = sum(count for _, count in receipt.rejected)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in receipt.rejected)
    first = f"; first: {receipt.first_error}" if receipt.first_error else ""
    return f"{refused} of {receipt.points_received} points refused ({reasons}){first}"
