"""Effective limits: plan, own, overrides, expiry; what a patch may say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.errors import TenantFault
from sluiceway.tenants.limits import (
    NAMES,
    UNLIMITED,
    check_patch,
    check_scale,
    effective,
    holds_until_ms,
    merged,
    without,
)
from sluiceway.tenants.model import Override
from sluiceway.tenants.plans import DAY_MS, STANDARD

PATCHES = st.dictionaries(
    st.sampled_from(sorted(NAMES - {"write.over_rate"})),
    st.one_of(st.none(), st.integers(1, 10**12)),
    max_size=6,
).map(
    lambda flat: {
        part: {name.partition(".")[2]: flat[name] for name in flat if name.startswith(f"{part}.")}
        for part in {name.partition(".")[0] for name in flat}
    }
)


def test_standard_is_15_days_13_months_3_years() -> None:
    retention = effective(STANDARD.limits, {}, (), 0).retention
    assert retention.raw_ms == 15 * DAY_MS
    assert retention.minute_ms == 396 * DAY_MS
    assert retention.hour_ms == (3 * 365 + 1) * DAY_MS


def test_own_beats_plan_and_null_lifts() -> None:
    plan = {"write": {"points_per_s": 100, "bytes_per_s": 10}}
    limits = effective(plan, {"write": {"points_per_s": None}}, (), 0)
    assert (limits.write.points_per_s, limits.write.bytes_per_s) == (None, 10)


def test_an_override_sets_scales_and_ends() -> None:
    plan = {"write": {"points_per_s": 100}}
    overrides = [
        Override(1, 1_000, scale={"write.points_per_s": 1.5, "write.bytes_per_s": 2.0}),
        Override(2, 500, set={"write": {"points_per_s": 1_000}}),
    ]
    # In the order in which they were made: scaled, then set.
    assert effective(plan, {}, overrides, 0).write.points_per_s == 1_000
    assert effective(plan, {}, overrides, 500).write.points_per_s == 150
    assert effective(plan, {}, overrides, 500).write.bytes_per_s is None, "unlimited stays so"
    assert effective(plan, {}, overrides, 1_000).write.points_per_s == 100
    assert [holds_until_ms(overrides, now) for now in (0, 500, 1_000)] == [500, 1_000, None]


@given(PATCHES, PATCHES, PATCHES, st.integers(0, 100))
def test_limits_come_from_the_last_that_names_them(
    plan: Any, own: Any, override: Any, now_ms: int
) -> None:
    limits = effective(plan, own, [Override(1, 50, set=override)], now_ms)
    sources = [plan, own, *([override] if now_ms < 50 else [])]
    for name in NAMES - {"write.over_rate"}:
        part, _, limit = name.partition(".")
        said = [source[part][limit] for source in sources if limit in source.get(part, {})]
        assert getattr(getattr(limits, part), limit) == (said[-1] if said else None)


@pytest.mark.parametrize(
    ("active_max", "factors", "expected"),
    [
        (1_000_000, [1_000.0] * 100, 9_007_199_254_740_991),
        (9_007_199_254_740_991, [1.5], 9_007_199_254_740_991),
        (5, [0.001] * 3, 1),
        (0, [1.5], 0),
    ],
)
def test_however_scaled_it_stays_a_limit(
    active_max: int, factors: list[float], expected: int
) -> None:
    """What cannot be a limit would be a fault in every stage that asks for it."""
    overrides = [Override(1, 10, scale={"series.active_max": factor}) for factor in factors]
    own = {"series": {"active_max": active_max}}
    assert effective({}, own, overrides, 0).series.active_max == expected


def test_nothing_is_changed_in_place() -> None:
    plan = {"write": {"points_per_s": 100}}
    effective(plan, {"write": {"points_per_s": 1}}, [], 0)
    assert merged(plan, {"write": {"bytes_per_s": 1}})["write"]["bytes_per_s"] == 1
    assert without(plan, ["write.points_per_s"]) == {}
    assert plan == {"write": {"points_per_s": 100}}
    assert effective({}, {}, (), 0) == UNLIMITED


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"nope": {}}, "nope"),
        ({"write": {"nope": 1}}, "nope"),
        ({"write": {"points_per_s": 0}}, "points_per_s"),
        ({"write": {"points_per_s": "many"}}, "points_per_s"),
        ({"write": {"points_per_s": True}}, "points_per_s"),
        ({"write": {"points_per_s": 2**53}}, "points_per_s"),
        ({"write": {"over_rate": "explode"}}, "over_rate"),
        ({"write": None}, "write"),
    ],
)
def test_a_bad_patch_is_422_and_named(patch: Any, words: str) -> None:
    with pytest.raises(TenantFault, match=words) as caught:
        check_patch(patch)
    assert (caught.value.status, caught.value.id) == (422, "sluiceway-limits")


@pytest.mark.parametrize(
    "scale",
    [{"write.nope": 2.0}, {"write.over_rate": 2.0}, {"write.points_per_s": 0.0}]
    + [{"write.points_per_s": factor} for factor in (-1.0, 1e9, float("nan"))],
)
def test_a_bad_factor_is_422(scale: dict[str, float]) -> None:
    with pytest.raises(TenantFault):
        check_scale(scale)
