"""The deploy's other mistake: a label with request ids, and the budget that contains it.

Owns the series that the label makes. Each request id lives a few steps and never comes back, on the
deployed service's request counter, which the fleet goes on sending without the label.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sluiceway.client import Reader, Series
from sluiceway.demo.fleet import DEPLOYED, Deploy

METRIC = "http_requests_total"
LABEL = "request_id"
BUDGET = "request-counters"
ROOM_SERIES = 34
"""What the budget leaves above the fleet's own series."""
IDS_PER_STEP = 120
LIFE_STEPS = 3
LETTERS_LOOKED_AT = 1000


def policy(known_series: int) -> bytes:
    """The policy's document: as many series of the metric as there are, and a little room."""
    hard = known_series + ROOM_SERIES
    return (
        "stage: enforce\nbudgets:\n"
        f"  - name: {BUDGET}\n    metric: {METRIC}\n"
        f"    active_series: {{soft: {known_series + ROOM_SERIES // 2}, hard: {hard}}}\n"
        "    action: drop\n"
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
    let_in: int
    """Series with the label that are in the index."""
    dead_lettered: int
    tag: str
    """The label with the most values among the dead letters, and how many, and of how many."""
    tag_values: int
    letters: int


def contained(reader: Reader, at_s: float) -> Containment:
    """Ask the server. What was pushed must be sealed, so that the letters show."""
    near = reader.request("GET", "/admin/v1/budgets")
    budget = next(row for row in near["budgets"] if row["budget"] == BUDGET)
    found = reader.query(f'count(last_over_time({METRIC}{{{LABEL}!=""}}[2h]))', at_s)
    letters = reader.get("deadletters", {"limit": str(LETTERS_LOOKED_AT)})["letters"]
    tag, values = widest_label(letter["labels"] for letter in letters)
    return Containment(
        version=near["version"],
        stage=near["stage"],
        budget=budget,
        let_in=int(float(found[0]["value"][1])) if found else 0,
        dead_lettered=budget["dead_lettered"],
        tag=tag,
        tag_values=values,
        letters=len(letters),
    )


def widest_label(label_sets: Iterable[Mapping[str, str]]) -> tuple[str, int]:
    """The label with the most values, and how many; ("", 0) of nothing."""
    pairs = {pair for labels in label_sets for pair in labels.items()}
    widest = Counter(name for name, _ in pairs).most_common(1)
    return widest[0] if widest else ("", 0)
