"""How long raw points of each tenant are kept: pure.

Invariant: in whole days, so that what the door refuses as too old and what goes is the same, and no
point that still comes in is older than what an order to let points go has already taken.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sluiceway.rollup.config import AGE_DAYS_MAX, TiersConfig
from sluiceway.tenants.limits import Limits, RetentionLimits
from sluiceway.tenants.model import Snapshot
from sluiceway.tiers.hot import RETENTION_PIECES, newest_settled_ms
from sluiceway.tiers.manifest import BlockEntry
from sluiceway.tiers.paths import DAY_MS, HOUR_MS


@dataclass(frozen=True)
class Ages:
    """By tenant, as their records say at one moment."""

    tiered: dict[str, RetentionLimits] = field(default_factory=dict)
    """Active tenants whose minutes or hours are kept."""
    own_ms: dict[str, int] = field(default_factory=dict)
    """How long raw points of other tenants are kept, where that is less than the server's."""
    door_days: dict[str, int] = field(default_factory=dict)
    """Older points are refused."""
    apart_ms: int = 0
    """The shortest of all, by which merges cut; 0: only the server's."""


def look(
    snapshot: Snapshot,
    limits: Callable[[str], Limits],
    config: TiersConfig,
    rolled: Collection[str],
    server_ms: int = 0,
) -> Ages:
    """`rolled`: tenants with windows, whatever their plan says now. `server_ms`: how long raw
    points of tenants without tiers are kept at most; 0 is for ever."""
    tiered: dict[str, RetentionLimits] = {}
    own_ms: dict[str, int] = {}
    days = dict.fromkeys(rolled, config.age_days)
    for name, tenant in snapshot.tenants.items():
        if tenant.status != "active":
            continue
        retention = limits(name).retention
        kept_ms = whole_days_ms(retention)
        if is_tiered(retention):
            tiered[name] = retention
            days[name] = raw_ms_of(retention, config) // DAY_MS
        elif kept_ms is not None:
            days[name] = min(days.get(name, AGE_DAYS_MAX + 1), kept_ms // DAY_MS)
            if not server_ms or kept_ms < server_ms:
                own_ms[name] = kept_ms
    shortest = [*own_ms.values(), *(raw_ms_of(one, config) for one in tiered.values())]
    door = {name: days[name] for name in sorted(days) if days[name] <= AGE_DAYS_MAX}
    return Ages(dict(sorted(tiered.items())), own_ms, door, min(shortest, default=0))


def is_tiered(retention: RetentionLimits) -> bool:
    return retention.minute_ms is not None or retention.hour_ms is not None


def whole_days_ms(retention: RetentionLimits) -> int | None:
    """The tenant's own `raw_ms`, rounded up."""
    return None if retention.raw_ms is None else -(-retention.raw_ms // DAY_MS) * DAY_MS


def raw_ms_of(retention: RetentionLimits, config: TiersConfig) -> int:
    """How long raw points are kept at least of a tenant that has tiers."""
    return min(config.raw_ms, whole_days_ms(retention) or config.raw_ms)


def step_ms(raw_ms: int) -> int:
    """Old points go in steps of an eighth of their time, or a day: what they share files with is
    written anew once a step."""
    return max(HOUR_MS, min(DAY_MS, raw_ms // RETENTION_PIECES // HOUR_MS * HOUR_MS))


def floor_ms(until_ms: int, raw_ms: int) -> int:
    """The last step at or before `until_ms`."""
    step = step_ms(raw_ms)
    return until_ms // step * step


def own_floors_ms(
    blocks: Sequence[BlockEntry], own_ms: dict[str, int], now_ms: int
) -> dict[str, int]:
    """Points at or before it are past their tenant's time, which is counted back from the newest
    point or, where that lies ahead of it, the clock."""
    if not blocks or not own_ms:
        return {}
    newest_ms = min(now_ms, newest_settled_ms(blocks))
    return {name: floor_ms(newest_ms - kept_ms, kept_ms) for name, kept_ms in own_ms.items()}
