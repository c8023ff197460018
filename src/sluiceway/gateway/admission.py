"""Admission: who may send a body, decided before the body is read.

Invariant: bytes and requests in flight never pass their limits by more than one body, in all and
by tenant; a refusal costs no allocation for the body. Who finds no room is parked, unread, and let
in by turns of the tenants; past `parked_max` or `parked_s_max` they are told when to come back.
However much one tenant sends, some room and some places to park are left for whoever comes.
"""

import asyncio
import random
from collections import deque

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Overloaded
from sluiceway.gateway.drain import DrainRate
from sluiceway.gateway.lanes import (
    REQUEST_COST_BYTES,
    Lane,
    Lanes,
    Parked,
    RefusalOf,
    Room,
    nobody_refused,
    too_long,
)
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.pace import Pace
from sluiceway.gateway.quota.interface import LimitsOf, QuotaLimiter, Verdict, unlimited
from sluiceway.gateway.rounds import Fit, Rounds

NO_PLACE = "too many requests wait for room"
SHARE = 4
"""A tenant may hold this many times what it leaves free: alone 4/5 of the room, two 4/9 each."""
SWEEP_S = 0.05
"""How much longer than `parked_s_max` a request may wait."""
OFFER = 1.1
"""Times what was acked, those who are refused are told to come back: where just as many came as
went, any gap between them would be lost, and the measured rate would fall by it each time."""


class Admission:
    """Counts what is in flight. Runs on the loop's thread only.

    Without a limiter nobody has a rate.
    """

    def __init__(
        self,
        limits: GatewayConfig,
        clock: Clock,
        randomness: random.Random,
        limits_of: LimitsOf = unlimited,
        limiter: QuotaLimiter | None = None,
        refusal_of: RefusalOf = nobody_refused,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._random = randomness
        self.jitter = randomness.random
        self._limiter = limiter
        self._lanes = Lanes(limits, limits_of, limiter is not None, refusal_of)
        self._rounds = Rounds(self._fit)
        self._drain = DrainRate(clock.monotonic_s())
        self.pace = Pace(limits.requests_in_flight_max, limits.parked_max)
        self.bytes_in_flight = 0
        self.requests_in_flight = 0
        self.parked_count = 0
        """Those that wait, unread, for their rate or for room; `_queued` wait for room."""
        self._queued = 0
        self._waits: deque[tuple[float, Parked]] = deque()
        """Those, and some that wait no longer, in the order in which their time ends."""

    @property
    def places_free(self) -> int:
        """Requests that would be let in now, of one tenant alone; 0 where some wait."""
        free = self.pace.in_flight_max - self.requests_in_flight
        return 0 if self._queued else max(0, (free * SHARE + SHARE) // (SHARE + 1))

    # In and out
    def enter(self, tenant: str, declared_bytes: int, now_s: float, any_size: bool = False) -> Room:
        """Judge one request; where the room is not `taken`, `park` comes next. `any_size`: a body
        of ours, which is no longer than those that were taken once.

        Raises: TenantFault 413, Overloaded.
        """
        lane = self._lanes.by_tenant.get(tenant)
        if lane is None or now_s >= lane.look_at_s:
            lane = self._lanes.look(tenant, now_s)
        if lane.refusal:
            latest_s = self._limits.retry_after_s_max
            raise Overloaded(latest_s, lane.refusal, 429, "sluiceway-over-volume")
        if declared_bytes > lane.body_bytes_max and not any_size:
            raise too_long(lane.body_bytes_max)
        room = Room(lane, declared_bytes, declared_bytes)
        if lane.rated:
            assert self._limiter is not None, "a rate needs a limiter"
            verdict = room.verdict = self._limiter.admit(tenant, declared_bytes, now_s)
            if verdict.outcome == "refuse":
                raise self._over_rate(lane, verdict)
            if verdict.outcome == "wait":
                return room
        # `_fit` and `_take` in place: this is every request's way, and a call costs.
        limits = self._limits
        bytes_free = limits.bodies_in_flight_bytes_max - self.bytes_in_flight
        requests_free = self.pace.in_flight_max - self.requests_in_flight
        if (
            not (self._rounds.stuck or lane.queue)
            and declared_bytes <= bytes_free
            and requests_free > 0
            and (
                lane.requests_in_flight == 0
                or (
                    lane.requests_in_flight < lane.requests_in_flight_max
                    and lane.requests_in_flight < SHARE * requests_free
                    and lane.bytes_in_flight + declared_bytes <= lane.bytes_in_flight_max
                    and lane.bytes_in_flight <= SHARE * bytes_free
                )
            )
        ):
            lane.bytes_in_flight += declared_bytes
            lane.requests_in_flight += 1
            self.bytes_in_flight += declared_bytes
            self.requests_in_flight += 1
            room.taken = True
        return room

    def full(
        self, tenant: str, declared_bytes: int, now_s: float, round_s: float
    ) -> Overloaded | None:
        """What `enter` and `park` would end in at once: others of the tenant wait for room, or
        will once this round of the loop is over, and there is no place beside them. None where a
        rate, a size or a new limit may decide."""
        lane = self._lanes.by_tenant.get(tenant)
        if (
            lane is None
            or lane.rated
            or lane.refusal
            or now_s >= lane.look_at_s
            or declared_bytes > lane.body_bytes_max
        ):
            return None
        if lane.coming_s != round_s:
            lane.coming, lane.coming_s = 0, round_s
        free = self.pace.in_flight_max - self.requests_in_flight
        will_wait = lane.coming - max(1, min(free, SHARE * free - lane.requests_in_flight))
        if (lane.queue or will_wait >= 0) and self._no_place(lane, max(0, will_wait)):
            return self._no_room(lane, declared_bytes, NO_PLACE)
        lane.coming += 1
        return None

    async def park(self, room: Room) -> None:
        """Wait, unread, for the tenant's rate and for room, and take it. Raises: Overloaded."""
        lane, verdict = room.lane, room.verdict
        if self._no_place(lane):
            self._refund(room)
            if verdict.outcome == "wait":
                raise self._over_rate(lane, verdict)
            raise self._no_room(lane, room.declared_bytes, NO_PLACE)
        lane.parked_count += 1
        self.parked_count += 1
        try:
            if verdict.outcome == "wait":
                await asyncio.sleep(verdict.after_s)
            await self._wait_for_room(room)
        except BaseException:
            self._refund(room)
            raise
        finally:
            lane.parked_count -= 1
            self.parked_count -= 1

    def _no_place(self, lane: Lane, before: int = 0) -> bool:
        """By what is free: one tenant gets half of the places, and two a third each. `before`: of
        this tenant, that will wait too."""
        return (
            lane.parked_count + before >= self._limits.parked_max - self.parked_count - before
            or len(lane.queue) + before >= self.pace.waiting_max - self._queued - before
        )

    def grow(self, room: Room, more_bytes: int) -> None:
        """Charge bytes that nobody declared. Raises: Overloaded."""
        if self.bytes_in_flight + more_bytes > self._limits.bodies_in_flight_bytes_max:
            raise self._no_room(room.lane, more_bytes, "bodies in flight are at their limit")
        room.body_bytes += more_bytes
        room.lane.bytes_in_flight += more_bytes
        self.bytes_in_flight += more_bytes

    def leave(self, room: Room, points: int | None) -> None:
        """Give back all that a request took, once it is decided; `points` where it was acked."""
        lane, body_bytes = room.lane, room.body_bytes
        lane.bytes_in_flight -= body_bytes
        lane.requests_in_flight -= 1
        self.bytes_in_flight -= body_bytes
        self.requests_in_flight -= 1
        drain = self._drain
        now_s = self._clock.monotonic_s()
        if points is not None:
            drain.acked_bytes += body_bytes + REQUEST_COST_BYTES
            self.pace.acked += 1
            if now_s >= drain.due_s:
                drain.measure(now_s)
            if lane.behind_until_s > now_s:
                self._behind_s(lane, 0.0, lane.slot_s)
        if lane.rated and self._limiter is not None:
            more_bytes, charged = body_bytes - room.declared_bytes, room.verdict.charged_points
            seen_bytes = 0 if points is None else body_bytes
            tenant = lane.tenant
            self._limiter.settle(tenant, seen_bytes, more_bytes, charged, points or 0, now_s)
        if self._rounds.waiting:
            self._let_in()

    # When to come back
    def retry_after_s(
        self, error: Overloaded | BackendUnavailable, tenant: str | None = None
    ) -> int:
        """Retry-After with full jitter: nobody comes back in step with anybody."""
        drain_s = error.retry_after_s if isinstance(error, Overloaded) else 1.0
        lane = self._lanes.by_tenant.get(tenant) if tenant is not None else None
        if lane is not None and not isinstance(error, Behind):
            drain_s = self._behind_s(lane, drain_s, self._slot_s(0))
        low, high = self._limits.retry_after_s_min, self._limits.retry_after_s_max
        return round(self._random.uniform(low, min(max(2 * drain_s, 3 * low), high)))

    def _behind_s(self, lane: Lane, after_s: float, slot_s: float) -> float:
        """When a refused request could be served, behind those refused before it."""
        now_s = self._clock.monotonic_s()
        until_s = max(lane.behind_until_s, now_s + after_s) + slot_s
        lane.behind_until_s = min(until_s, now_s + self._limits.retry_after_s_max)
        lane.slot_s = slot_s
        return lane.behind_until_s - now_s

    def _slot_s(self, body_bytes: int) -> float:
        """How long one request keeps the gateway busy, at this tenant's turns."""
        turns = max(1, self._rounds.waiting)
        return (body_bytes + REQUEST_COST_BYTES) * turns / (self._drain.bytes_per_s * OFFER)

    def _over_rate(self, lane: Lane, verdict: Verdict) -> Overloaded:
        status = 429 if lane.limits.over_rate == "refuse" else 503
        words = f"over the tenant's limit {verdict.limit}"
        behind_s = self._behind_s(lane, verdict.after_s, verdict.slot_s)
        return Behind(behind_s, words, status, "sluiceway-over-rate")

    def _no_room(self, lane: Lane, body_bytes: int, words: str) -> Overloaded:
        self._drain.note_busy()
        self.pace.note_crowd()
        drain_s = self.bytes_in_flight / self._drain.bytes_per_s
        return Behind(self._behind_s(lane, drain_s, self._slot_s(body_bytes)), words)

    # Room
    def _fit(self, parked: Parked) -> Fit:
        lane, body_bytes = parked.room.lane, parked.room.declared_bytes
        bytes_free = self._limits.bodies_in_flight_bytes_max - self.bytes_in_flight
        requests_free = self.pace.in_flight_max - self.requests_in_flight
        if body_bytes > bytes_free or requests_free <= 0:
            return Fit.NO_ROOM
        fits = lane.requests_in_flight == 0 or (  # one goes, however small the limit of them all
            lane.requests_in_flight < lane.requests_in_flight_max
            and lane.requests_in_flight < SHARE * requests_free
            and lane.bytes_in_flight + body_bytes <= lane.bytes_in_flight_max
            and lane.bytes_in_flight <= SHARE * bytes_free
        )
        return Fit.YES if fits else Fit.LANE_FULL

    def _take(self, room: Room) -> None:
        room.lane.bytes_in_flight += room.declared_bytes
        room.lane.requests_in_flight += 1
        self.bytes_in_flight += room.declared_bytes
        self.requests_in_flight += 1
        room.taken = True

    async def _wait_for_room(self, room: Room) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        parked = Parked(room, future)
        self._rounds.add(parked)
        self._let_in()
        if room.taken:
            return
        self._drain.note_busy()
        self.pace.note_crowd()
        self._queued += 1
        if not self._waits:
            loop.call_later(SWEEP_S, self._sweep, loop)
        self._waits.append((loop.time() + self._limits.parked_s_max, parked))
        try:
            await future
        finally:
            self._queued -= 1
            if self._rounds.withdraw(parked):
                self._let_in()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse those that waited too long: one timer for all, as they come one after another."""
        now_s, waits = loop.time(), self._waits
        while waits and (waits[0][1].future.done() or waits[0][0] <= now_s):
            parked = waits.popleft()[1]
            if not parked.future.done():
                words = "no room for the body in time"
                room = parked.room
                parked.future.set_exception(self._no_room(room.lane, room.declared_bytes, words))
        if waits:
            loop.call_later(SWEEP_S, self._sweep, loop)

    def _let_in(self) -> None:
        while (parked := self._rounds.take()) is not None:
            if not parked.future.done():
                self._take(parked.room)
                parked.future.set_result(None)

    def _refund(self, room: Room) -> None:
        """The request is not taken after all."""
        lane, declared_bytes = room.lane, room.declared_bytes
        if room.taken:
            room.taken = False
            lane.bytes_in_flight -= declared_bytes
            lane.requests_in_flight -= 1
            self.bytes_in_flight -= declared_bytes
            self.requests_in_flight -= 1
            self._let_in()
        if lane.rated and self._limiter is not None:
            charged, now_s = room.verdict.charged_points, self._clock.monotonic_s()
            self._limiter.refund(lane.tenant, declared_bytes, charged, now_s)


class Behind(Overloaded):
    """An overload whose time to come back counts those who were told before."""
