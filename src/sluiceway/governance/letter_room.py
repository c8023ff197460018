"""Whether what comes in again could be lost: the room that refused points would need, and whether
the budgets that refused them would do it again.

Invariant: pure; counts are the shard's, of one moment. What is not known is never called a lack.
"""

from collections.abc import Mapping

from sluiceway.governance.policy import PLAN_PREFIX, Action, Budget, LetterQuota, Policy, Stage
from sluiceway.governance.reading import Meter, Reading

DAY_MS = 86_400_000


def bytes_held(reading: Reading, quota: LetterQuota, tenant: str, now_ms: int) -> int:
    """Of a tenant's letters, as its quota counts them."""
    first_day = now_ms // DAY_MS - quota.days + 1
    by_day = reading.letter_bytes.get(tenant, {})
    return sum(size for day, size in by_day.items() if int(day) >= first_day)


def bytes_max(quota: LetterQuota, tenant: str) -> int:
    return quota.bytes_max_of.get(tenant, quota.bytes_max_per_tenant)


def full_budgets(
    policy: Policy, reading: Reading, tenant: str, series_of: Mapping[str, int]
) -> list[str]:
    """Which of these budgets have no room for so many series more. None of them where the reading
    is of another version than the policy's: the next record changes that."""
    budgets = {budget.name: (place, budget) for place, budget in enumerate(policy.budgets)}
    meters = {meter.budget: meter for meter in reading.meters if meter.tenant == tenant}
    full = []
    for name, series in sorted(series_of.items()):
        place, budget = budgets.get(name, (-1, None))
        if budget is None or not bites(policy, budget):
            continue
        if budget.standing or room_of(budget, meters.get(place)) < series:
            full.append(name)
    return full


def bites(policy: Policy, budget: Budget) -> bool:
    enforced = policy.stage is Stage.ENFORCE or budget.name.startswith(PLAN_PREFIX)
    return enforced and budget.action is not Action.OBSERVE


def room_of(budget: Budget, meter: Meter | None) -> float:
    """How many series it lets in; one that counted nothing yet has all of its room."""
    active, new = (0, 0) if meter is None else (meter.active_series, meter.new_series)
    limits = ((budget.active_series.hard, active), (budget.new_series_per_hour.hard, new))
    rooms = [hard - count for hard, count in limits if hard is not None]
    return min(rooms, default=float("inf"))
