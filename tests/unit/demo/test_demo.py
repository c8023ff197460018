"""The demo's own arithmetic: counters never fall, the explosion is one, the budget leaves room."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np

from sluiceway.demo.explosion import (
    IDS_PER_STEP,
    LABEL,
    LIFE_STEPS,
    ROOM_SERIES,
    Containment,
    Explosion,
    policy,
)
from sluiceway.demo.fleet import DEPLOYED, Deploy, Fleet
from sluiceway.demo.show import sparkline
from sluiceway.governance.document import parse_policy

DEPLOY = Deploy(20.0, 50.0)


def test_each_request_id_is_a_new_series_for_a_few_steps() -> None:
    fleet = Fleet(10.0, DEPLOY)
    explosion = Explosion(fleet.labels, DEPLOY)
    steps = [explosion.step(at_s) for at_s in (0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0)]
    lives = Counter(series.encoded for step in steps for series, _ in step)
    assert len(lives) == explosion.series_made == 3 * IDS_PER_STEP
    assert set(lives.values()) == {LIFE_STEPS}
    assert explosion.points_made == sum(lives.values())
    assert [len(step) // IDS_PER_STEP for step in steps] == [0, 0, 1, 2, 3, 2, 1, 0]
    assert {series.labels["service"] for step in steps for series, _ in step} == {DEPLOYED}


def test_the_budget_leaves_the_fleet_its_series() -> None:
    explosion = Explosion(Fleet(10.0, DEPLOY).labels, DEPLOY)
    read = parse_policy(policy(explosion.known_series).decode())
    (budget,) = read.budgets
    assert budget.active_series.hard == explosion.known_series + ROOM_SERIES


def test_held_means_named_within_budget_and_with_every_increase() -> None:
    explosion = Explosion(Fleet(10.0, DEPLOY).labels, DEPLOY)
    for at_s in (20.0, 30.0, 40.0):
        explosion.step(at_s)
    told = Containment(
        version=1,
        stage="enforce",
        budget={},
        let_in=ROOM_SERIES,
        outputs=24,
        increase=(3 * IDS_PER_STEP - ROOM_SERIES) * (LIFE_STEPS - 1.0),
        tags=[(LABEL, 300), ("instance", 8)],
        first_writer={},
    )
    assert explosion.is_held(told)
    assert not explosion.is_held(replace(told, increase=told.increase - 1))
    assert not explosion.is_held(replace(told, let_in=ROOM_SERIES + 1))
    assert not explosion.is_held(replace(told, tags=told.tags[1:]))


def test_counters_never_fall_and_buckets_are_cumulative() -> None:
    fleet = Fleet(10.0, Deploy(20.0, 50.0))
    steps = [values for _, values in fleet.steps(0.0, 8)]
    counters = [
        i for i, s in enumerate(fleet.labels) if s["__name__"].endswith(("_total", "_bucket"))
    ]
    for before, after in itertools.pairwise(steps):
        assert np.all(after[counters] >= before[counters])
    buckets = [i for i, s in enumerate(fleet.labels) if s["__name__"].endswith("_bucket")]
    table = steps[-1][buckets].reshape(-1, 12)
    assert np.all(np.diff(table, axis=1) >= 0)


def test_sparkline_spans_the_range() -> None:
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([float("nan")]) == ""
