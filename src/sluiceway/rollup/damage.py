"""Raw pages that stay damaged: how often a roll is tried before it goes past them.

Invariant: what a roll met once it is tried for again; a page that is known to be damaged holds up
no second hour for longer.
"""

from collections import Counter
from dataclasses import replace

from sluiceway.rollup.tasks import Roll, Task
from sluiceway.tiers.paths import HOUR_MS

ROLL_TRIES_MAX = 3
KNOWN_MAX = 1_000
"""Damaged pages that are remembered, and hours that are tried."""
Hour = tuple[str, int, bool]


class DamageMet:
    """One rollup's. Used by its thread."""

    def __init__(self) -> None:
        self._tries: Counter[Hour] = Counter()
        self._known: dict[str, None] = {}

    def softened(self, task: Task) -> Task:
        """The task, or the first of its hours past the damage."""
        if not isinstance(task, Roll) or self._tries[hour_of(task)] < ROLL_TRIES_MAX:
            return task
        until_ms = task.until_ms if task.again else task.from_ms + HOUR_MS
        return replace(task, until_ms=until_ms, past_damage=True)

    def met(self, task: Task, error: Exception) -> bool:
        """A roll failed; may it be tried again at once?"""
        if not isinstance(task, Roll):
            return False
        key, what = hour_of(task), str(error)
        self._tries[key] = ROLL_TRIES_MAX if what in self._known else self._tries[key] + 1
        if self._tries[key] < ROLL_TRIES_MAX:
            return False
        self._known[what] = None
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]
        return True

    def over(self, task: Task) -> None:
        """A roll succeeded."""
        if isinstance(task, Roll):
            self._tries.pop(hour_of(task), None)


def hour_of(task: Roll) -> Hour:
    return (task.tenant, task.from_ms, task.again)
