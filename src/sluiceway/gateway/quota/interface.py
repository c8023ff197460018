"""What admission asks of a quota limiter, and what a limiter needs to know of a tenant.

Invariant: over any span of T seconds a tenant is admitted at most `burst + rate x T` of each kind,
and past it by one body at most; points, which are known only once a body is decoded, by what was in
flight. Time is the caller's monotonic clock: a wall clock that jumps changes nothing, and a process
that was stopped finds the bursts full, no more.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from sluiceway.tenants.limits import UNLIMITED, WriteLimits

LimitsOf = Callable[[str], WriteLimits]
"""A tenant's limits as they hold now; no burst is one second's worth. Never blocks or raises."""


NO_LIMITS = UNLIMITED.write


def unlimited(tenant: str) -> WriteLimits:
    """For a gateway that knows no tenants."""
    return NO_LIMITS


class Verdict(msgspec.Struct, frozen=True):
    """`go`: charged, read the body. `wait`: charged too, read it in `after_s`. `refuse`: nothing is
    charged, and in `after_s` it would be admitted.

    `charged_points` were charged in advance, as many as such a body held lately. `slot_s` is how
    long such a request keeps the limit busy: who is refused behind others comes back that much
    later. `limit` is the limit's name.
    """

    outcome: Literal["go", "wait", "refuse"]
    after_s: float = 0.0
    slot_s: float = 0.0
    charged_points: float = 0.0
    limit: str = ""


GO = Verdict("go")


class QuotaLimiter(Protocol):
    """Rates of requests, bytes and points by tenant.

    Every method is called on the loop's thread with one monotonic clock, takes constant time
    whatever the number of tenants, and never blocks: a backend that shares rates among gateways
    spends tokens that it has fetched before.
    """

    def admit(self, tenant: str, body_bytes: int, now_s: float) -> Verdict:
        """Judge and charge one request before its body is read. Raises: Overloaded where too many
        tenants are active at once."""
        ...

    def settle(
        self,
        tenant: str,
        body_bytes: int,
        more_bytes: int,
        charged_points: float,
        points: int,
        now_s: float,
    ) -> None:
        """Charge what nobody could know before: a debt, if it has to be. Never refuses.

        `more_bytes` of the body's were not declared; `charged_points` is what the verdict said.
        """
        ...

    def refund(self, tenant: str, body_bytes: int, charged_points: float, now_s: float) -> None:
        """Give back what `admit` charged for a request that was not taken after all."""
        ...

    def tenants_known(self) -> int:
        """Tenants that are remembered; bounded."""
        ...
