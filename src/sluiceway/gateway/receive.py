"""A write request's whole journey, from its head to its durable ack, in one function.

Invariant: an answer of success means that the good rows are on the disk. A refusal before the body
costs no body; a client's fault is never a 5xx; every 429 and 503 says when to come back.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sluiceway.clock import Clock, ReceiveClock
from sluiceway.errors import BackendUnavailable, Overloaded, TenantFault
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.doors.interface import Answer, Door, Headers, Payload, Refusal
from sluiceway.gateway.interface import Receipt, WriteShard
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.kernels import is_quick
from sluiceway.telemetry import Metrics
from sluiceway.tenants.interface import TenantDirectory

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLOSE = ((b"connection", b"close"),)


class Disconnected(Exception):
    """The sender went away before its body was whole; there is nobody to answer."""


class Receiver:
    """Takes write requests. One per gateway; runs on the loop's thread."""

    def __init__(
        self,
        shard: WriteShard,
        acks: Acks,
        admission: Admission,
        keyring: Keyring,
        limits: GatewayConfig,
        clock: Clock,
        metrics: Metrics,
        tenants: TenantDirectory | None = None,
    ) -> None:
        self._shard = shard
        self._acks = acks
        self._admission = admission
        self._keyring = keyring
        self._limits = limits
        self._clock = clock
        self._receive_clock = ReceiveClock(clock)
        self._metrics = metrics
        self._tenants = tenants
        self._decoders = ThreadPoolExecutor(limits.decode_threads, "decode")
        self.accepting = True

    async def take(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        """The journey. Every way out answers, unless nobody is left to answer."""
        started_s = self._clock.monotonic_s()
        headers: Headers = dict(scope["headers"])
        admission, room = self._admission, 0
        unread, status = True, "500"
        try:
            if scope["method"] != "POST":
                raise TenantFault(405, "sluiceway-method", "only POST is taken here")
            if not self.accepting:
                raise Overloaded(1.0, "shutting down")
            tenant = self._keyring.authorize(headers, "write").tenant
            payload = door.payload(headers)
            declared, body_bytes_max = self._declared(headers, tenant)
            if not admission.admit(declared):
                await admission.park(declared)
            room = declared
            try:
                message = await receive()
                body = message["body"] if message["type"] == "http.request" else b""
                if message.get("more_body", False) or len(body) != declared:
                    body, room = await self._rest(message, declared, receive, body_bytes_max)
                unread = False
                receipt = await self._enqueue(body, tenant, payload)
                await self._acks.wait(receipt.ticket)
            finally:
                admission.release(room)
            admission.note_drained(room)
            answer = door.accepted(payload, receipt)
            self._count(door.name, receipt, len(body))
            self._metrics.observe(
                "sluiceway_write_ack_seconds", self._clock.monotonic_s() - started_s
            )
            status = str(answer.status)
        except Disconnected:
            status = "disconnected"
            return
        except (TenantFault, Overloaded, BackendUnavailable) as error:
            answer = self._refuse(door, headers, error, unread)
            status = str(answer.status)
        finally:
            # Whatever else is raised is a bug of ours: the server answers 500, counted here.
            self._metrics.count("sluiceway_write_requests_total", (door.name, status))
        await respond(answer, send)

    async def take_whole(
        self, door_name: str, payload: Payload, headers: Headers, body: bytes
    ) -> Receipt:
        """The same journey for a door that has read the body itself (gRPC).

        Raises: TenantFault, Overloaded, BackendUnavailable; the door words them.
        """
        admission, status = self._admission, "failed"
        try:
            if not self.accepting:
                raise Overloaded(1.0, "shutting down")
            tenant = self._keyring.authorize(headers, "write").tenant
            self._declared({b"content-length": b"%d" % len(body)}, tenant)
            if not admission.admit(len(body)):
                await admission.park(len(body))
            try:
                receipt = await self._enqueue(body, tenant, payload)
                await self._acks.wait(receipt.ticket)
            finally:
                admission.release(len(body))
            admission.note_drained(len(body))
            self._count(door_name, receipt, len(body))
            status = "200"
            return receipt
        except TenantFault as fault:
            status = str(fault.status)
            raise
        except (Overloaded, BackendUnavailable):
            status = "503"
            raise
        finally:
            self._metrics.count("sluiceway_write_requests_total", (door_name, status))

    def retry_after_s(self, error: Overloaded | BackendUnavailable) -> int:
        """When to come back after such an error, with jitter."""
        drain_s = error.retry_after_s if isinstance(error, Overloaded) else 1.0
        return self._admission.retry_after_s(drain_s)

    async def _enqueue(self, body: bytes, tenant: str, payload: Payload) -> Receipt:
        """Decode and queue: at once where it is quick, on a thread where the loop would stand."""
        received_ms = self._receive_clock.now_ms()
        arguments = (body, tenant, payload.format, payload.encoding, received_ms)
        short = len(body) <= self._limits.inline_body_bytes_max
        if short and is_quick(body, payload.format, payload.encoding):
            return self._shard.receive(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, self._shard.receive, *arguments)

    def _declared(self, headers: Headers, tenant: str) -> tuple[int, int]:
        """(the declared length, 0 where the body comes in chunks; the longest that is taken).

        Raises: TenantFault 400, 413.
        """
        most = self._limits.body_bytes_max
        if self._tenants is not None:
            own = self._tenants.limits(tenant).write.body_bytes_max
            if own is not None and own < most:
                most = own
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise TenantFault(400, "sluiceway-content-length", "not a length")
        if len(length) > 15 or int(length) > most:
            raise _too_long(most)
        return int(length), most

    async def _rest(
        self,
        message: MutableMapping[str, Any],
        declared: int,
        receive: Receive,
        body_bytes_max: int,
    ) -> tuple[bytes, int]:
        """(the whole body, the room it has taken) of a body that came in pieces."""
        pieces, size, room = [], 0, declared
        try:
            async with asyncio.timeout(self._limits.body_s_max):
                while True:
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    piece = message.get("body", b"")
                    pieces.append(piece)
                    size += len(piece)
                    if size > body_bytes_max:
                        raise _too_long(body_bytes_max)
                    if size > room:
                        self._admission.grow(size - room)
                        room = size
                    if not message.get("more_body", False):
                        return b"".join(pieces), room
                    message = await receive()
        except BaseException as error:
            self._admission.shrink(room - declared)
            if isinstance(error, TimeoutError):
                words = f"no whole body in {self._limits.body_s_max:g} s"
                raise TenantFault(408, "sluiceway-body-deadline", words) from None
            raise

    def _refuse(
        self,
        door: Door,
        headers: Headers,
        error: TenantFault | Overloaded | BackendUnavailable,
        unread: bool,
    ) -> Answer:
        if isinstance(error, TenantFault):
            refusal = Refusal(error.status, error.id, error.message)
        else:
            overloaded = isinstance(error, Overloaded)
            stable_id = "sluiceway-overloaded" if overloaded else "sluiceway-backend"
            refusal = Refusal(503, stable_id, str(error), self.retry_after_s(error))
        if unread:
            length = headers.get(b"content-length", b"")
            self._metrics.count("sluiceway_write_refused_unread_total", (refusal.id,))
            if length.isdigit() and len(length) < 16:
                self._metrics.count(
                    "sluiceway_write_refused_unread_bytes_total", (refusal.id,), int(length)
                )
        answer = door.refused(headers, refusal)
        endless = refusal.status == 413 and b"content-length" not in headers
        if refusal.status == 408 or endless or (unread and b"expect" in headers):
            # The rest of the body may be long, or never come: it is not waited for.
            return Answer(answer.status, answer.headers + CLOSE, answer.body)
        return answer

    def _count(self, door_name: str, receipt: Receipt, body_bytes: int) -> None:
        good = receipt.samples + receipt.histograms
        self._metrics.count_all(
            (
                ("sluiceway_write_points_total", (door_name, "accepted"), good),
                ("sluiceway_write_body_bytes_total", (door_name,), body_bytes),
            )
        )
        if receipt.rejected:
            refused = receipt.points_received - good
            self._metrics.count("sluiceway_write_points_total", (door_name, "rejected"), refused)

    def close(self) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)


NO_CONTENT_START = {"type": "http.response.start", "status": 204, "headers": ()}
EMPTY_BODY = {"type": "http.response.body", "body": b""}


def _too_long(body_bytes_max: int) -> TenantFault:
    words = f"a body holds at most {body_bytes_max} bytes"
    return TenantFault(413, "sluiceway-body-bytes", words)


async def respond(answer: Answer, send: Send) -> None:
    """Send a whole answer."""
    if answer.status == 204 and not answer.headers:
        await send(NO_CONTENT_START)
        await send(EMPTY_BODY)
        return
    headers: tuple[tuple[bytes, bytes], ...] = answer.headers
    if answer.status != 204:
        headers = (*headers, (b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
