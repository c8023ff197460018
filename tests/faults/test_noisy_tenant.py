"""Twenty tenants, one at 100 times the others' rate (FAULTS C7): the others notice nothing."""

from __future__ import annotations

import time
from pathlib import Path

from fakes.keyed import Keyed
from tests.faults import swarm

QUIET, LOUD_AGENTS = 19, 100
INTERVAL_S, SECONDS = 0.05, 8.0
POINTS = 500
KNOWN_S_MAX = 5.0
JAIN_MIN = 0.99
SERVED_MIN = 0.9
"""Of what a quiet tenant offers; its agents send as the clock says."""


def jain(shares: list[int]) -> float:
    """Jain's index of fairness: 1 where all get the same (Jain, Chiu, Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def known(keyed: Keyed, key: str) -> None:
    """Wait until the gateway takes it."""
    until_s = time.monotonic() + KNOWN_S_MAX
    while keyed.write(key, "warm_up") == 401:
        assert time.monotonic() < until_s, "a new key reaches the gateway"
        time.sleep(0.05)


def test_a_tenant_at_a_hundredfold_rate_takes_nothing_from_the_others(tmp_path: Path) -> None:
    keyed = Keyed(tmp_path / "data")
    keyed.server.start()
    try:
        quiet = [keyed.tenant(f"quiet{number}") for number in range(QUIET)]
        loud = keyed.tenant("loud")
        for key in (*quiet, loud):
            known(keyed, key)
        keys = [*quiet, *([loud] * LOUD_AGENTS)]
        plan = swarm.Plan(
            keyed.server.port,
            len(keys),
            SECONDS,
            INTERVAL_S,
            series=POINTS,
            bodies_repeat=True,
            drain_s_max=5.0,
            keys=keys,
        )
        seen = swarm.finish(swarm.start(plan), SECONDS + 60)
    finally:
        keyed.server.stop()
    shares = [seen.by_key[number] for number in range(QUIET)]
    assert jain(shares) >= JAIN_MIN, shares
    assert min(shares) >= SERVED_MIN * SECONDS / INTERVAL_S, shares
    assert sum(seen.by_key[QUIET + n] for n in range(LOUD_AGENTS)) > sum(shares)
    assert seen.no_retry_after == 0
    assert seen.others == 0
