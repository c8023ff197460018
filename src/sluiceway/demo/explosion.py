"""The deploy's other mistake: a label with request ids, and the budget that contains it.

Owns the series that the label makes. Each request id lives a few steps and never comes back, on the
deployed service's request counter, which the fleet goes on sending without the label.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluiceway.client import Reader, Series
from sluiceway.demo.fleet import DEPLOYED, Deploy

METRIC = "http_requests_total"
LABEL = "request_id"
BUDGET = "request-counters"
ROOM_SERIES = 34
"""What the budget leaves above the fleet's own series."""
FOLD_GRID_S = 1.0
"""Of the budget: short, so that what is folded comes out while somebody looks on."""
IDS_PER_STEP = 120
LIFE_STEPS = 3


def policy(known_series: int) -> bytes:
    """The policy's document: as many series of the metric as there are, and a little room."""
    hard, grid_ms = known_series + ROOM_SERIES, int(FOLD_GRID_S * 1000)
    return (
        "stage: enforce\nbudgets:\n"
        f"  - name: {BUDGET}\n    metric: {METRIC}\n"
        f"    active_series: {{soft: {known_series + ROOM_SERIES // 2}, hard: {hard}}}\n"
        f"    action: strip\n    drop_labels: [{LABEL}]\n"
        f"    fold: {{grid_ms: {grid_ms}, lateness_ms: {grid_ms}}}\n"
    ).encode()


class Explosion:
    """The series that the deploy makes, step by step."""

    def __init__(self, fleet_labels: Iterable[Mapping[str, str]], deploy: Deploy) -> None:
        self._deploy = deploy
        of_metric = [labels for labels in fleet_labels if labels["__name__"] == METRIC]
        self.known_series = len(of_metric)
        self._bases = [
            {name: value for name, value in labels.items() if name != "__name__"}
            for labels in of_metric
            if labels["service"] == DEPLOYED and labels["code"] == "200"
        ]
        self._random = random.Random(2)
        self._alive: list[tuple[Series, int]] = []
        """With the steps that each has lived."""
        self.series_made = 0
        self.points_made = 0

    def step(self, at_s: float) -> list[tuple[Series, float]]:
        """The points of the request ids that live at `at_s`: counters that rise by one a step."""
        lived = [(series, age + 1) for series, age in self._alive if age + 1 < LIFE_STEPS]
        if self._deploy.start_s <= at_s < self._deploy.rollback_s:
            lived += [(self._born(), 0) for _ in range(IDS_PER_STEP)]
        self._alive = lived
        self.points_made += len(lived)
        return [(series, float(age + 1)) for series, age in lived]

    def is_held(self, told: Containment) -> bool:
        """Did the budget hold, is the tag named, and do the sums have every increase?"""
        # A series' first point adds nothing: nobody knows what it had counted before.
        increase = (self.series_made - told.let_in) * (LIFE_STEPS - 1)
        named = bool(told.tags) and told.tags[0][0] == LABEL
        return named and told.let_in <= ROOM_SERIES and told.increase == increase

    def _born(self) -> Series:
        self.series_made += 1
        base = self._random.choice(self._bases)
        return Series(METRIC, {**base, LABEL: f"{self._random.getrandbits(64):016x}"})


@dataclass(frozen=True)
class Containment:
    """What became of the explosion, as the server tells it."""

    version: int
    stage: str
    budget: Mapping[str, Any]
    """Its row of `/admin/v1/budgets`."""
    let_in: int
    """Series with the label that are in the index."""
    outputs: int
    """Series that the others were folded into."""
    increase: float
    """What those rose by."""
    tags: Sequence[tuple[str, int]]
    """Labels of the refused series and their number of values, the most first."""
    first_writer: Mapping[str, str]


def contained(reader: Reader, at_s: float) -> Containment:
    """Ask the server, once what was folded has come out."""
    near = reader.request("GET", "/admin/v1/budgets")
    budget = next(row for row in near["budgets"] if row["budget"] == BUDGET)
    outputs = f'last_over_time({METRIC}{{folded_by="{BUDGET}"}}[1h])'
    exploded = reader.cardinality().get("explosions", ())
    mine: Mapping[str, Any] = next((one for one in exploded if one["budget"] == BUDGET), {})
    return Containment(
        version=near["version"],
        stage=near["stage"],
        budget=budget,
        let_in=int(_number(reader, f'count(last_over_time({METRIC}{{{LABEL}!=""}}[2h]))', at_s)),
        outputs=int(_number(reader, f"count({outputs})", at_s)),
        increase=_number(reader, f"sum({outputs})", at_s),
        tags=[(name, count) for name, count in mine.get("tags", ())],
        first_writer=mine.get("writer") or {},
    )


def _number(reader: Reader, query: str, at_s: float) -> float:
    found = reader.query(query, at_s)
    return float(found[0]["value"][1]) if found else 0.0
