"""Token buckets against the textbook, in exact fractions."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from fakes.limits import limits_by
from sluiceway.gateway.quota.embedded import EmbeddedQuotaLimiter, QuotaConfig
from sluiceway.tenants.limits import WriteLimits

WAIT_S_MAX = 2
steps = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 300), st.booleans()), min_size=1, max_size=80
)
"""(time passed in eighths of a second, bytes, is it given back?)."""


class Textbook:
    """A bucket that is filled, looked into and emptied."""

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.at_s = Fraction(burst), Fraction(0)

    def wait_s(self, cost: int, now_s: Fraction) -> Fraction:
        passed_s, self.at_s = now_s - self.at_s, now_s
        self.tokens = min(Fraction(self.burst), self.tokens + self.rate * passed_s)
        return max(Fraction(0), (min(cost, self.burst) - self.tokens) / self.rate)


@given(steps, st.integers(1, 50), st.integers(1, 200), st.integers(1, 5), st.integers(1, 10))
def test_verdicts_are_the_textbooks(
    steps: list[tuple[int, int, bool]], rate: int, burst: int, requests: int, requests_burst: int
) -> None:
    limits = WriteLimits(
        bytes_per_s=rate, bytes_burst=burst, requests_per_s=requests, requests_burst=requests_burst
    )
    limiter = EmbeddedQuotaLimiter(limits_by({"a": limits}), QuotaConfig(10, WAIT_S_MAX))
    sent, asked = Textbook(rate, burst), Textbook(requests, requests_burst)
    now_s = Fraction(0)
    for eighths, body_bytes, given_back in steps:
        now_s += Fraction(eighths, 8)
        verdict = limiter.admit("a", body_bytes, float(now_s))
        wait_s = max(sent.wait_s(body_bytes, now_s), asked.wait_s(1, now_s))
        assert abs(verdict.after_s - wait_s) < 1e-6
        if abs(wait_s - WAIT_S_MAX) > Fraction(1, 10**6):
            assert (verdict.outcome == "refuse") == (wait_s > WAIT_S_MAX)
        if verdict.outcome != "refuse":
            sent.tokens -= body_bytes
            asked.tokens -= 1
            if given_back:
                limiter.refund("a", body_bytes, 0.0, float(now_s))
                sent.tokens = min(Fraction(burst), sent.tokens + body_bytes)
                asked.tokens = min(Fraction(requests_burst), asked.tokens + 1)


@given(steps, st.integers(1, 50), st.integers(1, 200))
def test_no_span_holds_more_than_burst_and_rate(
    steps: list[tuple[int, int, bool]], rate: int, burst: int
) -> None:
    """What begins in a span is at most burst + rate x span, and one body."""
    limits = WriteLimits(bytes_per_s=rate, bytes_burst=burst)
    limiter = EmbeddedQuotaLimiter(limits_by({"a": limits}), QuotaConfig(10, WAIT_S_MAX))
    now_s, begun = 0.0, []
    for eighths, body_bytes, _ in steps:
        now_s += eighths / 8
        verdict = limiter.admit("a", body_bytes, now_s)
        if verdict.outcome != "refuse":
            begun.append((now_s + verdict.after_s, body_bytes))
    begun.sort()
    for first, (from_s, _) in enumerate(begun):
        total = 0
        for until_s, body_bytes in begun[first:]:
            total += body_bytes
            largest = max(body for _, body in begun)
            assert total <= burst + rate * (until_s - from_s) + largest + 1e-6
