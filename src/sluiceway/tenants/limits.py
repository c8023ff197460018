"""A tenant's limits, one slice a stage, and how they come about.

Invariant: `effective` is a pure function of (plan, tenant's own, overrides, now_ms). None is no
limit. A patch is a JSON object of slices; what it does not name is inherited.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from sluiceway.errors import TenantFault
from sluiceway.tenants.model import Override

NUMBER_MAX = 9_007_199_254_740_991
"""2**53 - 1: what every JSON reader keeps whole."""
Count = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]
FACTOR_MAX = 1_000.0
Patch = Mapping[str, Mapping[str, Any]]


class WriteLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway's slice. `over_rate`: `retry` answers 503, `refuse` 429, which agents drop on."""

    points_per_s: Positive | None = None
    points_burst: Positive | None = None
    bytes_per_s: Positive | None = None
    bytes_burst: Positive | None = None
    requests_per_s: Positive | None = None
    requests_burst: Positive | None = None
    requests_in_flight_max: Positive | None = None
    bytes_in_flight_max: Positive | None = None
    body_bytes_max: Positive | None = None
    over_rate: Literal["retry", "refuse"] = "retry"


class SeriesLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The processor's slice: budgets, which make a policy version when they change."""

    active_max: Count | None = None
    new_per_hour_max: Count | None = None


class RetentionLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tiers' slice: how long each keeps; None is for ever."""

    raw_ms: Positive | None = None
    minute_ms: Positive | None = None
    hour_ms: Positive | None = None


class QueryLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The read side's slice; the server's own limits hold besides."""

    concurrency_max: Positive | None = None
    timeout_ms_max: Positive | None = None
    range_ms_max: Positive | None = None
    series_max: Positive | None = None
    points_max: Positive | None = None
    cost_max: Positive | None = None
    memory_bytes_max: Positive | None = None
    result_bytes_max: Positive | None = None


class DeadLetterLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of what was refused is kept."""

    bytes_max: Count | None = None
    age_ms_max: Positive | None = None


class SpendLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A month's money in whole units of the price sheet's currency: past them alerts fire."""

    month_soft: Count | None = None
    month_hard: Count | None = None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All slices; a stage reads its own."""

    write: WriteLimits = WriteLimits()
    series: SeriesLimits = SeriesLimits()
    retention: RetentionLimits = RetentionLimits()
    query: QueryLimits = QueryLimits()
    dead_letters: DeadLetterLimits = DeadLetterLimits()
    spend: SpendLimits = SpendLimits()


UNLIMITED = Limits()
NO_QUOTA = QueryLimits()
NO_SPEND = SpendLimits()
NAMES: frozenset[str] = frozenset(
    f"{part.name}.{limit.name}"
    for part in msgspec.structs.fields(Limits)
    for limit in msgspec.structs.fields(part.type)
)
"""Every limit as `slice.limit`."""


def check_patch(patch: Patch) -> None:
    """Raises: TenantFault 422, naming what is wrong."""
    try:
        msgspec.convert(patch, Limits)
    except msgspec.ValidationError as error:
        raise TenantFault(422, "sluiceway-limits", f"limits: {error}") from None


def check_scale(scale: Mapping[str, float]) -> None:
    """Factors by `slice.limit`. Raises: TenantFault 422."""
    for name, factor in scale.items():
        if name not in NAMES or name == "write.over_rate":
            raise TenantFault(422, "sluiceway-limits", f"no number to scale is called {name}")
        if not 0 < factor <= FACTOR_MAX:
            words = f"{name}: a factor is above 0 and at most {FACTOR_MAX:g}"
            raise TenantFault(422, "sluiceway-limits", words)


def merged(base: Patch, patch: Patch) -> dict[str, dict[str, Any]]:
    """`patch` laid over `base`; neither is changed."""
    whole = {part: dict(limits) for part, limits in base.items()}
    for part, limits in patch.items():
        whole.setdefault(part, {}).update(limits)
    return whole


def without(patch: Patch, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The patch with these limits inherited again. Raises: TenantFault 422."""
    whole = merged(patch, {})
    for name in names:
        if name not in NAMES:
            raise TenantFault(422, "sluiceway-limits", f"no limit is called {name}")
        part, _, limit = name.partition(".")
        whole.get(part, {}).pop(limit, None)
    return {part: limits for part, limits in whole.items() if limits}


def effective(plan: Patch, own: Patch, overrides: Iterable[Override], now_ms: int) -> Limits:
    """The limits that hold at `now_ms`. Overrides are in the order in which they were made."""
    whole = merged(plan, own)
    for override in overrides:
        if now_ms >= override.until_ms:
            continue
        whole = merged(whole, override.set)
        for name, factor in override.scale.items():
            part, _, limit = name.partition(".")
            number = whole.get(part, {}).get(limit)
            if number is not None:
                whole[part][limit] = scaled(number, factor)
    return msgspec.convert(whole, Limits)


def scaled(number: int, factor: float) -> int:
    """A limit times a factor: one that lets something pass goes on doing so, 0 stays shut, and no
    number leaves what a limit may be, however many overrides meet."""
    return 0 if number == 0 else round(min(max(number * factor, 1), NUMBER_MAX))


def holds_until_ms(overrides: Iterable[Override], now_ms: int) -> int | None:
    """When `effective` next comes out differently by itself; None is never."""
    return min((o.until_ms for o in overrides if o.until_ms > now_ms), default=None)
