"""What a replay takes next, and which letters are taken: pure functions.

Invariant: the same letters make the same step and the same bodies, whoever plans it, so that a step
sent twice is dropped the second time by its batch keys. A step holds whole records.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import msgspec

from sluiceway.deadletters.bodies import replay_body
from sluiceway.deadletters.interface import Letter, Selection
from sluiceway.tiers.manifest import LettersEntry, Replay

BODY_LETTERS_MAX = 2_000
"""Of one body: a large record becomes several."""
BODY_BYTES_MAX = 1 << 20
POINT_BYTES = 24
LETTER_HEAD_BYTES_MAX = 320
"""Of a letter but for labels and points, with the longest name of a budget in ASCII."""
STEP_LETTERS_MAX = 4_000
"""Letters sent between two notes of progress; the last record may pass it."""
REPLAYS_MAX = 256
"""Kept in the manifest, those that are over among them while their letters are there."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is sent next, and where the replay stands once it is acked."""

    bodies: tuple[bytes, ...]
    letters: int
    points: int
    next_sequence: int
    letter_bytes: int = 0
    """At most so many of the quota, were all of it refused again."""
    series_of: Mapping[str, int] = field(default_factory=dict)
    """Series by the budget that refused them."""


def takes(replay: Replay, letter: Letter) -> bool:
    return (
        letter.sequence < replay.next_sequence
        and letter.tenant == replay.tenant
        and replay.reason in (None, letter.reason)
        and replay.since_ms <= letter.received_ms < replay.until_ms
    )


def untaken(letters: Iterable[Letter], replays: Sequence[Replay]) -> Iterator[Letter]:
    """Letters that no replay has taken."""
    return (letter for letter in letters if not any(takes(r, letter) for r in replays))


def selection_of(replay: Replay) -> Selection:
    return Selection(replay.tenant, replay.reason, replay.since_ms, replay.until_ms)


def step_of(letters: Sequence[Letter], next_sequence: int) -> Step:
    """Whole records of letters that are taken next, in order."""
    bodies = [
        replay_body(part, index)
        for _, of_record in groupby(letters, key=lambda letter: letter.sequence)
        for index, part in enumerate(parts(list(of_record)))
    ]
    points = sum(letter.point_count for letter in letters)
    framed_bytes = sum(LETTER_HEAD_BYTES_MAX + about_bytes(letter) for letter in letters)
    series: dict[str, set[frozenset[tuple[str, str]]]] = {}
    for letter in letters:
        series.setdefault(letter.budget, set()).add(frozenset(letter.labels.items()))
    counts = {budget: len(found) for budget, found in series.items()}
    return Step(tuple(bodies), len(letters), points, next_sequence, framed_bytes, counts)


def parts(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    """One record's letters in bodies of a bounded size."""
    part: list[Letter] = []
    size = 0
    for letter in letters:
        if part and (len(part) >= BODY_LETTERS_MAX or size >= BODY_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(letter)
        size += about_bytes(letter)
    if part:
        yield part


def about_bytes(letter: Letter) -> int:
    labels = sum(len(name) + len(value) + 6 for name, value in letter.labels.items())
    histograms = sum(len(coded) for _, coded in letter.histograms)
    return labels + POINT_BYTES * len(letter.floats) + histograms


def moved_on(replay: Replay, step: Step) -> Replay:
    return msgspec.structs.replace(
        replay,
        next_sequence=step.next_sequence,
        letters=replay.letters + step.letters,
        points=replay.points + step.points,
    )


def kept(replays: Iterable[Replay], files: Sequence[LettersEntry]) -> tuple[Replay, ...]:
    """Replays that still say something: those not over, and those over letters that are there."""
    oldest = min((file.first_sequence for file in files), default=1 << 62)
    return tuple(r for r in replays if not r.done or r.end_sequence > oldest)


def put(replays: Iterable[Replay], replay: Replay) -> tuple[Replay, ...]:
    """`replay` in the place of the one with its number, or behind all."""
    others = [other for other in replays if other.number != replay.number]
    return tuple(sorted([*others, replay], key=lambda r: r.number))
