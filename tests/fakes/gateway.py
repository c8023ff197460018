"""Fakes of the gateway's tests: a shard that never decodes, and a caller of ASGI applications."""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sluiceway.errors import TenantFault


class FakeReceipt(msgspec.Struct):
    """Made without a Python call, as the real one is: calls are counted."""

    ticket: int
    points_received: int = 3
    rejected: list[tuple[str, int]] = []
    first_error: str | None = None
    samples: int = 3
    histograms: int = 0
    exemplars: int = 0


class FakeShard:
    """Acks when told: `commit` decides every ticket given out so far."""

    def __init__(self, auto: bool = True) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.auto = auto
        self.bodies: list[tuple[bytes, str, int, int]] = []
        self.decided = 0
        self.failures: list[tuple[int, int, str]] = []
        self.receipt: dict[str, Any] = {}
        self.error: Exception | None = None

    def receive(
        self, body: bytes, tenant: str, format: int, encoding: int, received_ms: int
    ) -> FakeReceipt:
        if self.error is not None:
            raise self.error
        if body == b"garbage":
            raise TenantFault(400, "sluiceway-body", "not a request")
        self.bodies.append((body, tenant, format, encoding))
        if self.auto:
            self.commit()
        return FakeReceipt(len(self.bodies) - 1, **self.receipt)

    def commit(self) -> None:
        self.decided = len(self.bodies)
        os.eventfd_write(self.fd, 1)

    def fail(self, error: str) -> None:
        self.failures.append((self.decided, len(self.bodies) - 1, error))
        self.commit()

    def ack_fd(self) -> int:
        return self.fd

    def drain_acks(self) -> tuple[int, list[tuple[int, int, str]]]:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        failures, self.failures = self.failures, []
        return self.decided, failures


@dataclass
class Reply:
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


async def call(
    app: Any,
    path: str,
    pieces: Iterable[bytes] = (b"",),
    method: str = "POST",
    headers: Iterable[tuple[bytes, bytes]] = (),
    declare: bool = True,
    query: bytes = b"",
    hang: bool = False,
) -> Reply:
    """Call an ASGI application with a body in pieces; `hang`: the last piece never comes."""
    pieces = list(pieces)
    sent = [*headers]
    if declare and b"content-length" not in dict(sent):
        sent.append((b"content-length", str(sum(map(len, pieces))).encode()))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": sent,
    }
    reply = Reply()
    at = 0

    async def receive() -> dict[str, Any]:
        nonlocal at
        at += 1
        if at > len(pieces) or (hang and at == len(pieces)):
            await asyncio.Event().wait()
        more = at < len(pieces)
        return {"type": "http.request", "body": pieces[at - 1], "more_body": more}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            reply.status, reply.headers = message["status"], dict(message["headers"])
        else:
            reply.body += message.get("body", b"")

    await app(scope, receive, send)
    return reply
