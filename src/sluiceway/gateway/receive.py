"""A write request's whole journey, from its head to its durable ack, in one function.

Invariant: an answer of success means that the good rows are on the disk. A refusal before the body
costs no body; a client's fault is never a 5xx; every 429 and 503 says when to come back.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from sluiceway.clock import Clock, ReceiveClock
from sluiceway.deadletters.unreadable import UnreadableBodies, UnreadBody
from sluiceway.errors import BackendUnavailable, Overloaded, TenantFault
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.doors.interface import CLOSE, Answer, Door, Headers, Payload, Refusal
from sluiceway.gateway.interface import Receipt, WriteShard
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.lanes import Room, too_long
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.writers import Writers
from sluiceway.kernels import is_quick
from sluiceway.telemetry import Metrics, TenantLabels
from sluiceway.tenants.model import Principal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REPLAY_DOOR = "replay"
HEADER_TEXT_MAX = 200


class Disconnected(Exception):
    """The sender went away before its body was whole; there is nobody to answer."""


class Refused(Exception):
    """What `take_whole` says no with, where the sender may come back."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


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
        unreadable: UnreadableBodies | None = None,
    ) -> None:
        """`unreadable` gets bodies that could not be decoded; None: they are not kept."""
        self._unreadable = unreadable
        self._shard = shard
        self._acks = acks
        self.admission = admission
        self._keyring = keyring
        self._limits = limits
        self._clock = clock
        self._receive_clock = ReceiveClock(clock)
        self._metrics = metrics
        self._labels = TenantLabels()
        self._decoders = ThreadPoolExecutor(limits.decode_threads, "decode")
        self.writers = Writers()
        self.accepting = True

    async def take(self, door: Door, scope: Scope, receive: Receive, send: Send) -> None:
        """The journey. Every way out answers, unless nobody is left to answer."""
        started_s = self._clock.monotonic_s()
        headers: Headers = dict(scope["headers"])
        admission, tenant = self.admission, None
        unread = True
        status: str | None = "500"  # None once it is counted
        try:
            if scope["method"] != "POST":
                raise TenantFault(405, "sluiceway-method", "only POST is taken here")
            if not self.accepting:
                raise Overloaded(1.0, "shutting down")
            sender = self._keyring.authorize(headers, "write")
            tenant = sender.tenant
            payload = door.payload(headers)
            room = admission.enter(tenant, self._declared(headers), started_s)
            if not room.taken:
                await self._park(room)
            points = None
            try:
                message = await receive()
                body = message["body"] if message["type"] == "http.request" else b""
                if message.get("more_body", False) or len(body) != room.declared_bytes:
                    body = await self._rest(message, room, receive)
                unread = False
                receipt = await self._enqueue(body, tenant, payload)
                self.writers.note(receipt.ticket, sender.name, scope.get("client"), headers)
                await self._acks.wait(receipt.ticket)
                points = receipt.points_received
            finally:
                admission.leave(room, points)
            answer = door.accepted(payload, receipt)
            self._count(door.name, receipt, len(body), str(answer.status))
            status = None
            self._metrics.observe(
                "sluiceway_write_ack_seconds", self._clock.monotonic_s() - started_s
            )
        except Disconnected:
            status = "disconnected"
            return
        except (TenantFault, Overloaded, BackendUnavailable) as error:
            if isinstance(error, TenantFault) and not unread:
                self._keep_unreadable(body, error, door.name, sender, scope.get("client"), headers)
            answer = self._refuse(door, headers, error, unread, tenant)
            status = str(answer.status)
        finally:
            # Whatever else is raised is a bug of ours: the server answers 500, counted here.
            if status is not None:
                self._metrics.count("sluiceway_write_requests_total", (door.name, status))
        await respond(answer, send)

    def refuse_at_once(self, door: Door, headers: Headers, round_s: float) -> Answer | None:
        """What `take` would answer at once where the tenant has no room and no place to wait,
        counting those of this round of the loop that are before it; None where anything else
        decides. Takes nothing, and waits for nothing."""
        length = headers.get(b"content-length", b"")
        if not (self.accepting and length.isdigit() and len(length) < 16) or b"expect" in headers:
            return None
        try:
            tenant = self._keyring.authorize(headers, "write").tenant
            door.payload(headers)
        except (TenantFault, BackendUnavailable):
            return None
        now_s = self._clock.monotonic_s()
        error = self.admission.full(tenant, int(length), now_s, round_s)
        if error is None:
            return None
        answer = self._refuse(door, headers, error, True, tenant)
        self._metrics.count("sluiceway_write_requests_total", (door.name, str(answer.status)))
        return answer

    async def take_whole(
        self, door_name: str, payload: Payload, headers: Headers, body: bytes
    ) -> Receipt:
        """The same journey for a door that has read the body itself (gRPC).

        Raises: TenantFault, Refused; the door words them.
        """

        def sender() -> Principal:
            return self._keyring.authorize(headers, "write")

        return await self._take_read(door_name, payload, sender, body, headers)

    async def take_again(self, tenant: str, payload: Payload, body: bytes) -> Receipt:
        """The same journey for what was acked to `tenant` once and comes back (a replay): without
        a key, within the tenant's rate. Raises: as `take_whole`."""
        replay = Principal(tenant, frozenset(("write",)), REPLAY_DOOR)
        return await self._take_read(REPLAY_DOOR, payload, lambda: replay, body)

    async def _take_read(
        self,
        door_name: str,
        payload: Payload,
        sender: Callable[[], Principal],
        body: bytes,
        headers: Headers | None = None,
    ) -> Receipt:
        admission, tenant = self.admission, None
        status: str | None = "failed"
        try:
            if not self.accepting:
                raise Overloaded(1.0, "shutting down")
            principal = sender()
            tenant = principal.tenant
            again, now_s = door_name == REPLAY_DOOR, self._clock.monotonic_s()
            room = admission.enter(tenant, len(body), now_s, any_size=again)
            if not room.taken:
                await self._park(room)
            points = None
            try:
                receipt = await self._enqueue(body, tenant, payload)
                self.writers.note(receipt.ticket, principal.name, None, headers or {})
                await self._acks.wait(receipt.ticket)
                points = receipt.points_received
            finally:
                admission.leave(room, points)
            self._count(door_name, receipt, len(body), "200")
            status = None
            return receipt
        except TenantFault as fault:
            if tenant is not None and door_name != REPLAY_DOOR:
                self._keep_unreadable(body, fault, door_name, principal, None, headers or {})
            status = str(fault.status)
            raise
        except (Overloaded, BackendUnavailable) as error:
            refusal = self.refusal(error, tenant)
            status = str(refusal.status)
            raise Refused(refusal) from error
        finally:
            if status is not None:
                self._metrics.count("sluiceway_write_requests_total", (door_name, status))

    def refusal(
        self, error: TenantFault | Overloaded | BackendUnavailable, tenant: str | None
    ) -> Refusal:
        """What an error is to the sender; every 429 and 503 says when to come back."""
        if isinstance(error, TenantFault):
            return Refusal(error.status, error.id, error.message)
        status, stable_id = 503, "sluiceway-backend"
        if isinstance(error, Overloaded):
            status, stable_id = error.status, error.id
        if tenant is not None:
            label = self._labels.of(tenant)
            self._metrics.count("sluiceway_tenant_refused_total", (label, stable_id))
        retry_after_s = self.admission.retry_after_s(error, tenant)
        return Refusal(status, stable_id, str(error), retry_after_s)

    async def _park(self, room: Room) -> None:
        """Wait for the tenant's rate and for room. Raises: Overloaded."""
        await self.admission.park(room)
        label = self._labels.of(room.lane.tenant)
        self._metrics.count("sluiceway_tenant_parked_total", (label,))

    async def _enqueue(self, body: bytes, tenant: str, payload: Payload) -> Receipt:
        """Decode and queue: at once where it is quick, on a thread where the loop would stand."""
        received_ms = self._receive_clock.now_ms()
        arguments = (body, tenant, payload.format, payload.encoding, received_ms)
        short = len(body) <= self._limits.inline_body_bytes_max
        if short and is_quick(body, payload.format, payload.encoding):
            return self._shard.receive(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, self._shard.receive, *arguments)

    def _keep_unreadable(
        self,
        body: bytes,
        fault: TenantFault,
        door_name: str,
        sender: Principal,
        peer: tuple[str, int] | None,
        headers: Headers,
    ) -> None:
        """A body that was read and could not be decoded is kept for people to look at."""
        if self._unreadable is None or fault.status != HTTPStatus.BAD_REQUEST:
            return

        def text(name: bytes) -> str:
            return headers.get(name, b"")[:HEADER_TEXT_MAX].decode("latin-1")

        facts = UnreadBody(
            number=0,
            time_ms=0,
            tenant=sender.tenant,
            door=door_name,
            id=fault.id,
            message=fault.message,
            bytes=0,
            kept_bytes=0,
            key=sender.name,
            address=peer[0] if peer else "",
            agent=text(b"user-agent"),
            content_type=text(b"content-type"),
            content_encoding=text(b"content-encoding"),
        )
        self._unreadable.note(body, facts)

    def _declared(self, headers: Headers) -> int:
        """The declared length; 0 where the body comes in chunks. Raises: TenantFault 413."""
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise TenantFault(400, "sluiceway-content-length", "not a length")
        if len(length) > 15 or int(length) > self._limits.body_bytes_max:
            raise too_long(self._limits.body_bytes_max)
        return int(length)

    async def _rest(self, message: MutableMapping[str, Any], room: Room, receive: Receive) -> bytes:
        """The whole body, of one that came in pieces; its room grows with it."""
        pieces, size, size_max = [], 0, room.lane.body_bytes_max
        try:
            async with asyncio.timeout(self._limits.body_s_max):
                while True:
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    piece = message.get("body", b"")
                    pieces.append(piece)
                    size += len(piece)
                    if size > size_max:
                        raise too_long(size_max)
                    if size > room.body_bytes:
                        self.admission.grow(room, size - room.body_bytes)
                    if not message.get("more_body", False):
                        return b"".join(pieces)
                    message = await receive()
        except TimeoutError:
            words = f"no whole body in {self._limits.body_s_max:g} s"
            raise TenantFault(408, "sluiceway-body-deadline", words) from None

    def _refuse(
        self,
        door: Door,
        headers: Headers,
        error: TenantFault | Overloaded | BackendUnavailable,
        unread: bool,
        tenant: str | None,
    ) -> Answer:
        refusal = self.refusal(error, tenant)
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

    def _count(self, door_name: str, receipt: Receipt, body_bytes: int, status: str) -> None:
        """What was acked, in one call: this is on every request's way."""
        good = receipt.samples + receipt.histograms
        self._metrics.count_all(
            (
                ("sluiceway_write_points_total", (door_name, "accepted"), good),
                ("sluiceway_write_body_bytes_total", (door_name,), body_bytes),
                ("sluiceway_write_requests_total", (door_name, status), 1),
            )
        )
        if receipt.rejected:
            refused = receipt.points_received - good
            self._metrics.count("sluiceway_write_points_total", (door_name, "rejected"), refused)

    def close(self) -> None:
        self._decoders.shutdown(wait=False, cancel_futures=True)


NO_CONTENT_START = {"type": "http.response.start", "status": 204, "headers": ()}
EMPTY_BODY = {"type": "http.response.body", "body": b""}


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
