"""Letters for people: a page of those that nobody has taken, by metric and labels, and counts.

Invariant: a page's cursor leads to the first letter that was not looked at; no request looks at
more than `LETTERS_LOOKED_AT_MAX`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sluiceway.deadletters.interface import DeadLetters, Letter, Page, Selection
from sluiceway.deadletters.replay import untaken
from sluiceway.tiers.manifest import Replay

LETTERS_LOOKED_AT_MAX = 100_000
PAGE = 2_000
METRICS_TOLD_MAX = 100


class Counts(msgspec.Struct, frozen=True):
    """Letters and points, and letters by what they were refused for and of what."""

    letters: int
    points: int
    by_reason: dict[str, int]
    by_metric: dict[str, int]
    """The largest `METRICS_TOLD_MAX`."""
    by_budget: dict[str, int]
    by_policy_version: dict[int, int]
    complete: bool
    """False: there are more letters than one request looks at."""
    damaged: int


@dataclass(frozen=True)
class Filter:
    """Which of the selected letters: by metric, and by labels' equality (empty: absent)."""

    metric: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def fits(self, letter: Letter) -> bool:
        name = letter.labels.get("__name__", "")
        return self.metric in (None, name) and all(
            letter.labels.get(label, "") == value for label, value in self.labels.items()
        )


def browse(
    letters: DeadLetters,
    replays: Sequence[Replay],
    selection: Selection,
    wanted: Filter,
    limit: int,
    cursor: str | None,
) -> Page:
    """Up to `limit` letters. Blocks. Raises: as DeadLetters.browse."""
    found: list[Letter] = []
    damaged = looked_at = 0
    while True:
        page = letters.browse(selection, PAGE, cursor)
        damaged += page.damaged
        for index, letter in enumerate(page.letters):
            if not wanted.fits(letter) or not any(untaken([letter], replays)):
                continue
            found.append(letter)
            if len(found) == limit:
                seen = index + 1
                if seen == len(page.letters):
                    return Page(tuple(found), page.cursor, damaged)
                again = letters.browse(selection, seen, cursor)
                return Page(tuple(found), again.cursor, damaged)
        cursor, looked_at = page.cursor, looked_at + len(page.letters)
        if cursor is None or looked_at >= LETTERS_LOOKED_AT_MAX:
            return Page(tuple(found), cursor, damaged)


def count(
    letters: DeadLetters, replays: Sequence[Replay], selection: Selection, wanted: Filter
) -> Counts:
    """What there is, by reason, metric, budget and policy version. Blocks."""
    reasons: Counter[str] = Counter()
    metrics: Counter[str] = Counter()
    budgets: Counter[str] = Counter()
    versions: Counter[int] = Counter()
    points = damaged = looked_at = 0
    cursor: str | None = None
    while True:
        page = letters.browse(selection, PAGE, cursor)
        for letter in untaken(page.letters, replays):
            if wanted.fits(letter):
                reasons[letter.reason] += 1
                metrics[letter.labels.get("__name__", "")] += 1
                budgets[letter.budget] += 1
                versions[letter.policy_version] += 1
                points += letter.point_count
        cursor, damaged = page.cursor, damaged + page.damaged
        looked_at += len(page.letters)
        if cursor is None or looked_at >= LETTERS_LOOKED_AT_MAX:
            break
    return Counts(
        letters=reasons.total(),
        points=points,
        by_reason=dict(reasons),
        by_metric=dict(metrics.most_common(METRICS_TOLD_MAX)),
        by_budget=dict(budgets),
        by_policy_version=dict(versions),
        complete=cursor is None,
        damaged=damaged,
    )
