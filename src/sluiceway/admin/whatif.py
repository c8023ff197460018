"""What-if: recorded hours judged by a policy that is not in force.

Invariant: changes nothing. The candidate is judged as if its stage were `enforce`, with the limits
of plans beside it, as it would be in force.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from sluiceway.admin.routes import Asked, Route
from sluiceway.clock import Clock
from sluiceway.cost.rates import SeriesRates
from sluiceway.errors import DeadlineExceeded, Overloaded, SluicewayError, TenantFault
from sluiceway.governance.compile import compile_policy
from sluiceway.governance.document import parse_policy
from sluiceway.governance.plans import with_plans
from sluiceway.governance.policy import Stage
from sluiceway.governance.whatif import (
    HOUR_MS,
    Judged,
    MoneyEffect,
    Query,
    WhatIf,
    touched_queries,
)
from sluiceway.tenants.model import Snapshot

DAYS_DEFAULT, DAYS_MAX = 7, 366
REFUSED_MAX = 10_000
HOURS_A_DAY = 24
TIMEOUT_MS = 25_000
CANDIDATE = 1
"""Its version while it is judged: nobody names it."""

ReadQueries = Callable[[int], Iterable[Query]]
"""Queries asked since a time in ms."""


class Judge(Protocol):
    """The shard's end of it: `kernels.ShardClient`."""

    def whatif(self, request: dict[str, Any]) -> dict[str, Any]: ...


class WhatIfRoutes:
    """The handler. Blocks for seconds; any thread."""

    def __init__(
        self,
        judge: Judge,
        snapshot: Callable[[], Snapshot],
        queries: ReadQueries | None,
        clock: Clock,
        rates: Callable[[], SeriesRates] | None = None,
    ) -> None:
        """`rates`: what series cost; it may block, and raise SluicewayError and OSError."""
        self._rates = rates
        self._judge = judge
        self._snapshot = snapshot
        self._queries = queries
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/policies/whatif",
                self.whatif,
                "What a policy, in YAML or JSON, would have done in the last days; changes nothing",
                WhatIf,
                query=("days", "refused"),
                text=True,
            )
        ]

    def whatif(self, asked: Asked) -> WhatIf:
        days = asked.count("days", DAYS_DEFAULT, DAYS_MAX)
        refused = asked.count("refused", 0, REFUSED_MAX) if "refused" in asked.query else 0
        policy = with_plans(parse_policy(asked.body), self._snapshot(), self._clock.now_ms())
        policy = msgspec.structs.replace(policy, stage=Stage.ENFORCE)
        request = {
            "table": compile_policy(policy, CANDIDATE).decode(),
            "hours": days * HOURS_A_DAY,
            "list_max": refused,
            "timeout_ms": TIMEOUT_MS,
        }
        try:
            judged = msgspec.convert(self._judge.whatif(request), Judged)
        except DeadlineExceeded:
            words = f"not done in {TIMEOUT_MS // 1000} s: ask for fewer days"
            raise TenantFault(422, "sluiceway-whatif-deadline", words) from None
        except Overloaded as error:
            raise TenantFault(503, "sluiceway-whatif-busy", str(error)) from None
        exact = judged.estimate_from_hour is None
        return WhatIf(days, exact, judged, self._touched(judged), self._money(judged))

    def _money(self, judged: Judged) -> MoneyEffect | None:
        if self._rates is None:
            return None
        try:
            rates = self._rates()
        except (SluicewayError, OSError):
            return None  # the verdict does not depend on it
        if rates.measured_s <= 0:
            return None
        counts = (
            (one.tenant, one.metric, one.series_refused + one.series_folded)
            for one in judged.metrics
        )
        return MoneyEffect(rates.currency, rates.money(counts), rates.measured_s)

    def _touched(self, judged: Judged) -> Any:
        if self._queries is None or judged.from_hour is None:
            return None
        return touched_queries(judged, self._queries(judged.from_hour * HOUR_MS))
