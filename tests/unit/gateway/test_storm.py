"""Thousands of agents come back at once after a stall (FAULTS C2), in made-up time.

The real thing, smaller: tests/faults/test_storm.py.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from fakes.storm import DISK_S, HEAD_S, Storm, Told, run

STORM = Storm(agents=5000, steady_s=10.0, stopped_s=60.0, after_s=30.0)
STEADY = STORM.agents / STORM.interval_s
CAPACITY = 1 / (HEAD_S + STORM.decode_s)
BACK_S = int(STORM.steady_s + STORM.stopped_s)
"""The second in which the server goes on."""


def goodput_from(told: Told, from_s: int, seconds: int) -> float:
    return sum(told.goodput[second] for second in range(from_s, from_s + seconds)) / seconds


def test_agents_that_obey_retry_after() -> None:
    """95 % of the steady goodput within 10 s, no second wave, and no more than can be borne."""
    assert CAPACITY > 1.5 * STEADY
    assert DISK_S < 1.0
    told = run(STORM)
    for from_s in range(BACK_S + 2, BACK_S + 28):
        assert goodput_from(told, from_s, 2) >= 0.95 * STEADY, (from_s, told.goodput)
    assert goodput_from(told, BACK_S + 2, 26) >= 0.9 * CAPACITY, "the backlog, at full speed"
    # Single seconds vary: Retry-After has whole ones only.
    offered = [told.offered[second] for second in range(BACK_S + 1, BACK_S + 30)]
    assert max(offered) <= 1.8 * CAPACITY, offered
    pairs = [(a + b) / 2 for a, b in pairwise(offered)]
    assert max(pairs) <= 1.5 * CAPACITY, offered
    assert sum(told.refused.values()) > 1000, "or it was no storm"


@pytest.mark.timeout(240)
def test_agents_with_a_backoff_of_their_own() -> None:
    """Prometheus before 2.50 or so: 30 ms to 5 s, whatever a 503 says. Refusals must be cheap."""
    told = run(replace(STORM, obey="own-backoff", after_s=20.0))
    for from_s in range(BACK_S + 3, BACK_S + 18):
        assert goodput_from(told, from_s, 2) >= 0.95 * STEADY, (from_s, told.goodput)


def test_a_storm_of_twenty_tenants() -> None:
    told = run(replace(STORM, tenants=20, agents=2500, interval_s=5.0, after_s=20.0))
    for from_s in range(BACK_S + 2, BACK_S + 18):
        assert goodput_from(told, from_s, 2) >= 0.95 * STEADY, (from_s, told.goodput)
