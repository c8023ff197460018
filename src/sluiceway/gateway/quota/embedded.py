"""Token buckets in this process' memory.

A bucket is one moment: when it is full again. Tokens spent move it on, time passing comes nearer,
and before it is over the bucket holds `burst - (full_at_s - now_s) x rate` tokens; less than none
is a debt, paid before anything goes.

Invariant: a full bucket says nothing that a new one would not, so tenants whose buckets are full
are forgotten; at most `tenants_max` are held.
"""

from dataclasses import dataclass

from sluiceway.errors import Overloaded
from sluiceway.gateway.quota.interface import GO, LimitsOf, Verdict
from sluiceway.tenants.limits import WriteLimits

LIMITS_LOOK_S = 1.0
"""A changed limit holds within this."""
FORGET_LOOKS = 8
"""Tenants looked at, oldest first, when a new one finds no place."""
POINTS_PER_BYTE_WEIGHT = 0.1
"""Of the newest body in a tenant's points per byte."""
REQUESTS, BYTES, POINTS = range(3)
NAMES = ("write.requests_per_s", "write.bytes_per_s", "write.points_per_s")


@dataclass(frozen=True)
class QuotaConfig:
    """`tenants_max` tenants below full bursts at once; the next one is 503."""

    tenants_max: int = 16_384
    wait_s_max: float = 2.0
    """Who may go within this waits, unread; who may not is refused."""


@dataclass(slots=True)
class Bucket:
    """One rate of a tenant; `kind` is REQUESTS, BYTES or POINTS."""

    kind: int
    rate: float
    burst: float
    full_at_s: float


class Account:
    """A tenant's buckets, of those kinds alone that have a limit."""

    __slots__ = ("buckets", "limits", "look_at_s", "points_per_byte")

    def __init__(self) -> None:
        self.buckets: tuple[Bucket, ...] = ()
        self.limits: WriteLimits | None = None
        self.look_at_s = 0.0
        self.points_per_byte = 0.0

    def take(self, limits: WriteLimits, now_s: float) -> None:
        """Take limits that may have changed: what was spent stays spent."""
        self.look_at_s = now_s + LIMITS_LOOK_S
        if limits is self.limits:
            return
        self.limits = limits
        spent = {b.kind: max(0.0, b.full_at_s - now_s) * b.rate for b in self.buckets}
        rates = (
            (limits.requests_per_s, limits.requests_burst),
            (limits.bytes_per_s, limits.bytes_burst),
            (limits.points_per_s, limits.points_burst),
        )
        self.buckets = tuple(
            Bucket(kind, rate, burst or rate, now_s + spent.get(kind, 0.0) / rate)
            for kind, (rate, burst) in enumerate(rates)
            if rate is not None
        )

    def is_full(self, now_s: float) -> bool:
        return all(bucket.full_at_s <= now_s for bucket in self.buckets)

    def spend(self, costs: tuple[float, float, float], now_s: float) -> None:
        """Costs by kind; negative ones are given back."""
        for bucket in self.buckets:
            full_at_s = bucket.full_at_s if bucket.full_at_s > now_s else now_s
            bucket.full_at_s = full_at_s + costs[bucket.kind] / bucket.rate


class EmbeddedQuotaLimiter:
    """A QuotaLimiter."""

    def __init__(self, limits_of: LimitsOf, config: QuotaConfig) -> None:
        self._limits_of = limits_of
        self._config = config
        self._accounts: dict[str, Account] = {}

    def admit(self, tenant: str, body_bytes: int, now_s: float) -> Verdict:
        account = self._accounts.get(tenant)
        if account is None or now_s >= account.look_at_s:
            account = self._look(tenant, now_s)
        points = account.points_per_byte * body_bytes
        costs = (1.0, float(body_bytes), points)
        after_s, slowest = 0.0, None
        for bucket in account.buckets:
            # Who costs more than the burst goes when the bucket is full, and leaves a debt.
            spare = bucket.burst - costs[bucket.kind]
            ready_at_s = bucket.full_at_s - (spare / bucket.rate if spare > 0 else 0.0)
            if ready_at_s - now_s > after_s:
                after_s, slowest = ready_at_s - now_s, bucket
        if slowest is None:
            for bucket in account.buckets:  # `spend` in place: this is every request's way
                full_at_s = bucket.full_at_s if bucket.full_at_s > now_s else now_s
                bucket.full_at_s = full_at_s + costs[bucket.kind] / bucket.rate
            return Verdict("go", charged_points=points) if points > 0 else GO
        slot_s, limit = costs[slowest.kind] / slowest.rate, NAMES[slowest.kind]
        if after_s > self._config.wait_s_max:
            return Verdict("refuse", after_s, slot_s, 0.0, limit)
        account.spend(costs, now_s)
        return Verdict("wait", after_s, slot_s, points, limit)

    def settle(
        self,
        tenant: str,
        body_bytes: int,
        more_bytes: int,
        charged_points: float,
        points: int,
        now_s: float,
    ) -> None:
        account = self._accounts.get(tenant)
        if account is None:
            return  # forgotten since: its buckets were full in spite of this body
        account.spend((0.0, float(more_bytes), points - charged_points), now_s)
        if body_bytes > 0:
            found, known = points / body_bytes, account.points_per_byte
            weight = POINTS_PER_BYTE_WEIGHT if known > 0 else 1.0
            account.points_per_byte = known + weight * (found - known)

    def refund(self, tenant: str, body_bytes: int, charged_points: float, now_s: float) -> None:
        account = self._accounts.get(tenant)
        if account is not None:
            account.spend((-1.0, float(-body_bytes), -charged_points), now_s)

    def tenants_known(self) -> int:
        return len(self._accounts)

    def _look(self, tenant: str, now_s: float) -> Account:
        """The tenant's account with its limits as they are. Raises: Overloaded."""
        account = self._accounts.get(tenant)
        if account is None:
            if len(self._accounts) >= self._config.tenants_max:
                self._forget(now_s)
            account = self._accounts[tenant] = Account()
        account.take(self._limits_of(tenant), now_s)
        return account

    def _forget(self, now_s: float) -> None:
        for _ in range(min(FORGET_LOOKS, len(self._accounts))):
            tenant = next(iter(self._accounts))
            account = self._accounts.pop(tenant)
            if account.is_full(now_s):
                return
            self._accounts[tenant] = account
        raise Overloaded(1.0, f"{self._config.tenants_max} tenants send at once already")
