"""The contract of the role `QuotaLimiter`, run over every backend that is here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fakes.limits import limits_by
from sluiceway.errors import Overloaded
from sluiceway.gateway.quota.embedded import EmbeddedQuotaLimiter, QuotaConfig
from sluiceway.gateway.quota.interface import QuotaLimiter
from sluiceway.tenants.limits import WriteLimits

Make = Callable[..., QuotaLimiter]
DAY_S = 86_400.0


@pytest.fixture(params=["embedded"])
def make(request: pytest.FixtureRequest) -> Make:
    """A limiter by tenants' limits."""

    def make_it(limits: dict[str, WriteLimits], tenants_max: int = 100) -> QuotaLimiter:
        return EmbeddedQuotaLimiter(limits_by(limits), QuotaConfig(tenants_max, wait_s_max=2.0))

    return make_it


def outcomes(
    limiter: QuotaLimiter, tenant: str, count: int, now_s: float, body_bytes: int = 1
) -> str:
    """First letters: g(o), w(ait), r(efuse)."""
    found = (limiter.admit(tenant, body_bytes, now_s) for _ in range(count))
    return "".join(verdict.outcome[0] for verdict in found)


def test_who_has_no_limit_goes(make: Make) -> None:
    limiter = make({})
    assert outcomes(limiter, "a", 1000, 0.0, 10**9) == "g" * 1000


def test_a_burst_goes_then_some_wait_and_the_rest_is_refused(make: Make) -> None:
    limiter = make({"a": WriteLimits(requests_per_s=2, requests_burst=5)})
    assert outcomes(limiter, "a", 12, 0.0) == "ggggg" + "wwww" + "rrr"
    assert outcomes(limiter, "b", 12, 0.0) == "g" * 12


def test_waits_are_in_line(make: Make) -> None:
    limiter = make({"a": WriteLimits(requests_per_s=2, requests_burst=1)})
    waits = [limiter.admit("a", 1, 0.0).after_s for _ in range(5)]
    assert waits == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])
    refused = limiter.admit("a", 1, 0.0)
    assert refused.outcome == "refuse"
    assert refused.after_s == pytest.approx(2.5)
    assert refused.slot_s == pytest.approx(0.5)
    assert refused.limit == "write.requests_per_s"


def test_a_refusal_costs_nothing(make: Make) -> None:
    limiter = make({"a": WriteLimits(requests_per_s=1, requests_burst=1)})
    outcomes(limiter, "a", 1000, 0.0)
    assert limiter.admit("a", 1, 3.0).outcome == "go"


def test_no_burst_is_one_second(make: Make) -> None:
    limiter = make({"a": WriteLimits(requests_per_s=7)})
    assert outcomes(limiter, "a", 8, 0.0) == "ggggggg" + "w"


def test_a_body_larger_than_the_burst_goes_and_leaves_a_debt(make: Make) -> None:
    limiter = make({"a": WriteLimits(bytes_per_s=100, bytes_burst=100)})
    assert limiter.admit("a", 1000, 0.0).outcome == "go"
    assert limiter.admit("a", 1, 0.0).after_s == pytest.approx(9.01)
    assert limiter.admit("a", 100, 10.0).outcome == "go"


def test_points_are_a_debt_once_they_are_known(make: Make) -> None:
    limiter = make({"a": WriteLimits(points_per_s=100, points_burst=100)})
    verdict = limiter.admit("a", 50, 0.0)
    assert (verdict.outcome, verdict.charged_points) == ("go", 0.0)
    limiter.settle("a", 50, 0, verdict.charged_points, 600, 0.0)
    refused = limiter.admit("a", 0, 0.0)
    assert (refused.outcome, refused.limit) == ("refuse", "write.points_per_s")
    assert refused.after_s == pytest.approx(5.0)


def test_points_are_expected_of_the_next_body(make: Make) -> None:
    limiter = make({"a": WriteLimits(points_per_s=100, points_burst=1000)})
    limiter.admit("a", 50, 0.0)
    limiter.settle("a", 50, 0, 0.0, 600, 0.0)
    verdict = limiter.admit("a", 25, 0.0)
    assert verdict.charged_points == pytest.approx(300)
    assert limiter.admit("a", 25, 0.0).after_s == pytest.approx(2.0)
    limiter.settle("a", 0, 0, verdict.charged_points, 0, 0.0)  # it held none: all comes back
    assert limiter.admit("a", 0, 2.0).outcome == "go"


def test_a_refund_gives_all_back(make: Make) -> None:
    limits = WriteLimits(requests_per_s=1, requests_burst=3, bytes_per_s=10, bytes_burst=30)
    limiter = make({"a": limits})
    for _ in range(100):
        verdict = limiter.admit("a", 10, 0.0)
        assert verdict.outcome == "go"
        limiter.refund("a", 10, verdict.charged_points, 0.0)
    assert outcomes(limiter, "a", 4, 0.0, 10) == "gggw"


def test_a_stopped_process_finds_a_burst_and_no_more(make: Make) -> None:
    limiter = make({"a": WriteLimits(requests_per_s=2, requests_burst=5)})
    assert outcomes(limiter, "a", 12, 0.0).count("r") == 3
    assert outcomes(limiter, "a", 12, 10 * DAY_S) == "ggggg" + "wwww" + "rrr"


def test_a_clock_that_stands_or_goes_back_brings_nothing(make: Make) -> None:
    limiter = make({"a": WriteLimits(requests_per_s=2, requests_burst=5)})
    assert outcomes(limiter, "a", 9, 100.0) == "ggggg" + "wwww"
    assert outcomes(limiter, "a", 3, 100.0) == "rrr"
    assert outcomes(limiter, "a", 3, 50.0) == "rrr"
    assert limiter.admit("a", 1, 102.2).outcome == "wait"
    assert limiter.admit("a", 1, 110.0).outcome == "go"


def test_changed_limits_hold_within_a_second_and_what_was_spent_stays_spent(make: Make) -> None:
    limits = {"a": WriteLimits(requests_per_s=10, requests_burst=100)}
    limiter = make(limits)
    assert outcomes(limiter, "a", 60, 0.0) == "g" * 60
    limits["a"] = WriteLimits(requests_per_s=20, requests_burst=70)
    assert outcomes(limiter, "a", 31, 1.0)[:20] == "g" * 20  # 70 - (60 - 10)
    assert limiter.admit("a", 1, 1.0).outcome == "wait"
    limits["a"] = WriteLimits()
    assert outcomes(limiter, "a", 1000, 2.0) == "g" * 1000


def test_tenants_are_bounded_and_those_that_rest_are_forgotten(make: Make) -> None:
    limits = {f"t{n}": WriteLimits(requests_per_s=1, requests_burst=1) for n in range(40)}
    limiter = make(limits, tenants_max=10)
    for n in range(10):
        assert limiter.admit(f"t{n}", 1, 0.0).outcome == "go"
    with pytest.raises(Overloaded, match="10 tenants"):
        limiter.admit("t10", 1, 0.5)
    for n in range(10, 40):
        assert limiter.admit(f"t{n}", 1, 2.0 * n).outcome == "go"
        assert limiter.tenants_known() <= 10
    assert limiter.admit("t39", 1, 78.0).outcome == "wait", "who is not at rest is remembered"


def test_settling_a_forgotten_tenant_does_nothing(make: Make) -> None:
    limiter = make({"a": WriteLimits(points_per_s=1)})
    limiter.settle("a", 10, 0, 0.0, 100, 0.0)
    limiter.refund("a", 10, 0.0, 0.0)
    assert limiter.tenants_known() == 0
