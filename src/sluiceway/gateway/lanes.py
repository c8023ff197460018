"""What the gateway holds of one tenant, and of one request of it.

Invariant: a lane's counts are the sums over its rooms and parked requests; a lane that holds
nothing, waits for nothing and has told nobody to come back may be forgotten.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from sluiceway.errors import Overloaded, TenantFault
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.quota.interface import GO, NO_LIMITS, LimitsOf, Verdict
from sluiceway.tenants.limits import WriteLimits

RefusalOf = Callable[[str], str]
"""Why a tenant's writes are refused; empty where they are not."""
LIMITS_LOOK_S = 1.0
"""A tenant's changed limits hold within this."""
FORGET_LOOKS = 8
"""Lanes looked at, oldest first, when a new tenant finds no place."""
REQUEST_COST_BYTES = 4 * 1024
"""What a request costs besides its body: many small ones are as much work as a large one."""


class Lane:
    """One tenant at the door."""

    __slots__ = (
        "behind_until_s",
        "body_bytes_max",
        "bytes_in_flight",
        "bytes_in_flight_max",
        "coming",
        "coming_s",
        "credit_bytes",
        "in_round",
        "limits",
        "look_at_s",
        "parked_count",
        "queue",
        "rated",
        "refusal",
        "requests_in_flight",
        "requests_in_flight_max",
        "slot_s",
        "tenant",
    )

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.limits: WriteLimits = NO_LIMITS
        self.look_at_s = 0.0
        self.rated = False
        self.refusal = ""
        """Why nothing is taken, whatever the rates say."""
        self.body_bytes_max = 0
        self.bytes_in_flight = 0
        self.bytes_in_flight_max = 0
        self.requests_in_flight = 0
        self.requests_in_flight_max = 0
        self.coming, self.coming_s = 0, 0.0
        """Heads of the loop's round `coming_s` that are to be let in or parked behind it."""
        self.parked_count = 0
        """Those that wait for their rate, and those in `queue`, which wait for room."""
        self.queue: deque[Parked] = deque()
        self.in_round = False
        self.credit_bytes = 0
        self.behind_until_s = 0.0
        """When all who were told to come back could have been served."""
        self.slot_s = 0.0
        """What one more adds to that, whether it is told to come back or goes in before them."""

    def at_rest(self, now_s: float) -> bool:
        busy = self.requests_in_flight or self.parked_count or self.in_round
        return not busy and self.behind_until_s <= now_s


class Room(msgspec.Struct):
    """What one request holds of its lane, from its head to its answer."""

    lane: Lane
    declared_bytes: int
    body_bytes: int
    taken: bool = False
    verdict: Verdict = GO


class Parked:
    """One request that waits, unread, for room."""

    __slots__ = ("cost_bytes", "future", "room")

    def __init__(self, room: Room, future: asyncio.Future[None]) -> None:
        self.room = room
        self.cost_bytes = room.declared_bytes + REQUEST_COST_BYTES
        self.future = future


class Lanes:
    """The tenants that are here, or were lately: at most `tenants_max`."""

    def __init__(
        self, ours: GatewayConfig, limits_of: LimitsOf, limited: bool, refusal_of: RefusalOf
    ) -> None:
        self._refusal_of = refusal_of
        self._ours = ours
        self._limits_of = limits_of
        self._limited = limited
        self.by_tenant: dict[str, Lane] = {}

    def look(self, tenant: str, now_s: float) -> Lane:
        """The tenant's lane, with its limits as they are now. Raises: Overloaded."""
        lane = self.by_tenant.get(tenant)
        if lane is None:
            if len(self.by_tenant) >= self._ours.tenants_max:
                self._forget(now_s)
            lane = self.by_tenant[tenant] = Lane(tenant)
        lane.look_at_s = now_s + LIMITS_LOOK_S
        limits = lane.limits = self._limits_of(tenant)
        lane.refusal = self._refusal_of(tenant)
        ours = self._ours
        rates = (limits.requests_per_s, limits.bytes_per_s, limits.points_per_s)
        lane.rated = self._limited and any(rate is not None for rate in rates)
        lane.body_bytes_max = _least(ours.body_bytes_max, limits.body_bytes_max)
        requests_max, bytes_max = ours.requests_in_flight_max, ours.bodies_in_flight_bytes_max
        lane.requests_in_flight_max = _least(requests_max, limits.requests_in_flight_max)
        lane.bytes_in_flight_max = _least(bytes_max, limits.bytes_in_flight_max)
        return lane

    def _forget(self, now_s: float) -> None:
        for _ in range(min(FORGET_LOOKS, len(self.by_tenant))):
            tenant = next(iter(self.by_tenant))
            lane = self.by_tenant.pop(tenant)
            if lane.at_rest(now_s):
                return
            self.by_tenant[tenant] = lane
        raise Overloaded(1.0, f"{self._ours.tenants_max} tenants send at once already")


def nobody_refused(tenant: str) -> str:
    """Without a meter no volume is known."""
    return ""


def _least(ours: int, tenants: int | None) -> int:
    return ours if tenants is None else min(ours, tenants)


def too_long(body_bytes_max: int) -> TenantFault:
    words = f"a body holds at most {body_bytes_max} bytes"
    return TenantFault(413, "sluiceway-body-bytes", words)
