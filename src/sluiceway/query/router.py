"""Which tier answers which step of a leaf: a pure function (docs/router.md says the rules).

Invariant: every step is answered by exactly one segment; what a segment calls exact equals the
answer from raw points, provided that the series' kinds keep the fields that the function needs.
Ranges of time are left-open here, (from, until], as PromQL's windows are.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sluiceway.query.coverage import ALWAYS_MS, HOUR_MS, Coverage, Interval, Rollup

RAW, STRADDLE = "raw", "straddle"

INSTANT = frozenset(("last", "timestamp"))
_FOLDS = ("sum", "avg", "min", "max", "count", "last", "first", "present", "absent")
STATES = (
    INSTANT
    | frozenset(("rate", "increase", "delta"))
    | frozenset(f"{name}_over_time" for name in (*_FOLDS, "ts_of_last", "ts_of_first"))
)
"""Functions that windows answer as their points do."""

SKETCHED = frozenset(("quantile_over_time",))
"""Functions that sketches of windows answer within a relative error."""

PAYS_WINDOWS_MIN = 10
"""Windows of the range, and of the step, from which a rollup beside raw is worth its reading."""
PAYS_SPAN_MS_MIN = 6 * HOUR_MS
"""Time that the whole leaf reads, likewise."""
SEGMENTS_MAX = 32
"""Segments beyond which rollups beside raw are left alone."""
PIECES_MAX = 8
"""Pieces of a window from which on raw goes on to its end."""

Exactness = Literal["exact", "bounded", "approximate"]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Question:
    """A leaf's windows, `offset` and `@` already in them: step k reads (end - range, end], with
    end = first_ms + k * step_ms. `range_ms` of an instant selector is its look-back; `reach_ms` is
    how far an extended selector looks beyond its range, both ways."""

    function: str
    first_ms: int
    step_ms: int
    steps: int
    range_ms: int
    extended: bool = False
    reach_ms: int = 0

    def ends_ms(self) -> NDArray[np.int64]:
        return self.first_ms + self.step_ms * np.arange(self.steps, dtype=np.int64)

    def span_ms(self) -> int:
        return self.step_ms * (self.steps - 1) + self.range_ms


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of straddling windows: what of them falls into (from, until] is this tier's."""

    tier: str
    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Steps first..last (inclusive) and who answers them. `exactness` is the best that can come of
    it: kinds may know less. `otherwise`: who answers if they do; None where nobody does better.
    `sketched`: bounded by the relative error of sketches, where there are some."""

    tier: str
    first: int
    last: int
    exactness: Exactness = "exact"
    bound_ms: int = 0
    otherwise: str | None = None
    pieces: tuple[Piece, ...] = ()
    sketched: bool = False


def rollup_matters(question: Question, raw_from_ms: int) -> bool:
    """May anything but raw answer? Asked before the shard is asked for dirty hours."""
    oldest_ms = question.first_ms - question.range_ms - question.reach_ms
    return oldest_ms < raw_from_ms or _pays(question, 60_000)


def route(question: Question, coverage: Coverage) -> list[Segment]:
    """Segments in order of their steps."""
    raw_ms, clean = coverage.raw_ms(), coverage.clean()
    raw = _covers(question, (raw_ms,))
    if not clean or (raw.all() and not _pays(question, clean[0].window_ms)):
        return [Segment(RAW, 0, question.steps - 1)]
    segments = _segments(question, clean, raw_ms, beside_raw=True)
    if len(segments) > SEGMENTS_MAX:
        segments = _segments(question, clean, raw_ms, beside_raw=False)
    return segments


def _segments(
    question: Question, rollups: list[Rollup], raw_ms: Interval, beside_raw: bool
) -> list[Segment]:
    raw = _covers(question, (raw_ms,))
    covers = {rollup.tier: _covers(question, rollup.covered) for rollup in rollups}
    exact = [rollup for rollup in reversed(rollups) if _fits(question, rollup)]
    # Later rules give way to earlier ones: the best is written last.
    nobody = len(rollups) + 1
    chosen = np.full(question.steps, nobody)
    for number, rollup in reversed(list(enumerate(rollups))):
        chosen[covers[rollup.tier]] = number
    for rollup in reversed(exact):
        chosen[covers[rollup.tier]] = rollups.index(rollup)
    pays = beside_raw and any(
        _pays(question, rollup.window_ms) for rollup in exact if not _sketched(question, rollup)
    )
    taken = np.zeros(question.steps, dtype=np.bool_)
    for rollup in exact if pays else []:
        taken |= covers[rollup.tier]
    chosen[raw & ~taken] = len(rollups)
    borders = [0, *(np.flatnonzero(np.diff(chosen)) + 1).tolist(), question.steps]
    # Who is last resort may change within steps of one tier.
    borders = sorted({*borders, *(np.flatnonzero(np.diff(raw)) + 1).tolist()})
    segments: list[Segment] = []
    for first, until in pairwise(borders):
        number, last = int(chosen[first]), until - 1
        if number == nobody:
            segments += _straddling(question, rollups, raw_ms, first, last)
        elif number == len(rollups):
            segments.append(Segment(RAW, first, last))
        else:
            rollup = rollups[number]
            segments.append(_rolled(question, rollup, rollups, first, last, bool(raw[first])))
    return segments


def _rolled(
    question: Question, rollup: Rollup, rollups: list[Rollup], first: int, last: int, raw: bool
) -> Segment:
    """Steps that one rollup answers, and who answers them if its kinds know too little."""
    exactness, fits = _exactness(question, rollup), _fits(question, rollup)
    bound_ms = rollup.window_ms if exactness == "bounded" and not fits else 0
    otherwise = None
    if fits:
        steps = _part(question, first, last)
        finer = rollups[: rollups.index(rollup)]
        found = (other.tier for other in finer if _covers(steps, other.covered).all())
        otherwise = RAW if raw else next(found, None)
    by_sketches = _sketched(question, rollup)
    return Segment(rollup.tier, first, last, exactness, bound_ms, otherwise, sketched=by_sketches)


def _straddling(
    question: Question, rollups: list[Rollup], raw_ms: Interval, first: int, last: int
) -> list[Segment]:
    """Steps whose windows no tier holds alone: cut at fixed times, where one tier hands over."""
    part = _part(question, first, last)
    end_ms = part.first_ms + part.step_ms * (part.steps - 1) + part.reach_ms
    pieces: list[Piece] = []
    at_ms = part.first_ms - part.range_ms - part.reach_ms
    while at_ms < end_ms:
        found = _holder(part, rollups, raw_ms, at_ms)
        if len(pieces) >= PIECES_MAX and raw_ms[0] <= at_ms:
            found = (RAW, ALWAYS_MS)
        if found is None:
            starts = [start for r in rollups for start, _ in r.covered] + [raw_ms[0]]
            at_ms = min((start for start in starts if start > at_ms), default=end_ms)
            continue
        pieces.append(Piece(found[0], at_ms, min(found[1], end_ms)))
        at_ms = found[1]
    if len({piece.tier for piece in pieces}) <= 1:
        # Nothing is anywhere else: whoever has something answers alone.
        tier = pieces[0].tier if pieces else RAW
        rollup = next((r for r in rollups if r.tier == tier), None)
        if rollup is None:
            return [Segment(RAW, first, last)]
        return [_rolled(question, rollup, rollups, first, last, raw=False)]
    exactness, bound_ms = _straddled(part, rollups, pieces)
    by_sketches = exactness == "bounded" and question.function in SKETCHED
    return [Segment(STRADDLE, first, last, exactness, bound_ms, None, tuple(pieces), by_sketches)]


def _holder(
    part: Question, rollups: list[Rollup], raw_ms: Interval, at_ms: int
) -> tuple[str, int] | None:
    """Who holds what follows `at_ms`, and until when: the coarsest that is exact, the finest that
    is not, raw until a rollup goes on."""
    exact = [r for r in reversed(rollups) if _edges(part, r.window_ms) and _states(part)]
    rest = [rollup for rollup in rollups if rollup not in exact]
    for rollup in (*exact, *rest):
        for start, until in rollup.covered:
            if start <= at_ms < until:
                return rollup.tier, until
    if raw_ms[0] > at_ms:
        return None
    starts = (start for rollup in rollups for start, _ in rollup.covered if start > at_ms)
    return RAW, min(starts, default=ALWAYS_MS)


def _straddled(part: Question, rollups: list[Rollup], pieces: list[Piece]) -> tuple[Exactness, int]:
    """Exact where each edge of a window falls between windows of the tier that it falls into;
    bounded there by sketches."""
    asked = {piece.tier for piece in pieces}
    by_sketches = all(_sketched(part, rollup) for rollup in rollups if rollup.tier in asked)
    if not _states(part) and not by_sketches:
        return "approximate", 0
    windows = {rollup.tier: rollup.window_ms for rollup in rollups}
    ends = part.ends_ms()
    off_ms = 0
    for piece in pieces:
        if piece.tier == RAW:
            continue
        window_ms = windows[piece.tier]
        starts = ends - part.range_ms
        begins = starts[(starts >= piece.from_ms) & (starts < piece.until_ms)]
        finishes = ends[(ends > piece.from_ms) & (ends <= piece.until_ms)]
        edges = finishes if part.function in INSTANT else np.concatenate((begins, finishes))
        if (edges % window_ms).any():
            off_ms = max(off_ms, window_ms)
    return ("bounded", off_ms) if off_ms or not _states(part) else ("exact", 0)


def _fits(question: Question, rollup: Rollup) -> bool:
    """Does the rollup say as much as it can say of this function at all?"""
    known = _states(question) or _sketched(question, rollup)
    return known and _edges(question, rollup.window_ms)


def _sketched(question: Question, rollup: Rollup) -> bool:
    return rollup.sketched and question.function in SKETCHED and not question.extended


def _exactness(question: Question, rollup: Rollup) -> Exactness:
    if _sketched(question, rollup):
        return "bounded"
    if not _states(question):
        return "approximate"
    return "exact" if _edges(question, rollup.window_ms) else "bounded"


def _states(question: Question) -> bool:
    return question.function in STATES and not question.extended


def _edges(question: Question, window_ms: int) -> bool:
    """Do the edges of all steps fall between windows? Of an instant selector the end alone: the
    newest point is in the last window, whatever its look-back."""
    numbers = [question.first_ms]
    if question.steps > 1:
        numbers.append(question.step_ms)
    if question.function not in INSTANT:
        numbers.append(question.range_ms)
    return math.gcd(*numbers) % window_ms == 0


def _pays(question: Question, window_ms: int) -> bool:
    """Is the leaf long enough that reading windows beats reading points?"""
    least_ms = PAYS_WINDOWS_MIN * window_ms
    one = question.steps == 1
    ranged = question.range_ms >= least_ms
    if question.function in INSTANT:
        ranged = not one
    return (
        ranged
        and (one or question.step_ms >= least_ms)
        and (question.span_ms() >= PAYS_SPAN_MS_MIN)
    )


def _part(question: Question, first: int, last: int) -> Question:
    first_ms = question.first_ms + question.step_ms * first
    return Question(
        question.function,
        first_ms,
        question.step_ms,
        last - first + 1,
        question.range_ms,
        question.extended,
        question.reach_ms,
    )


def _covers(question: Question, intervals: tuple[Interval, ...]) -> Booleans:
    """The steps whose whole window lies in one of the intervals."""
    if not intervals:
        return np.zeros(question.steps, dtype=np.bool_)
    ends = question.ends_ms()
    bounds = np.array(intervals, dtype=np.int64)
    oldest, newest = ends - question.range_ms - question.reach_ms, ends + question.reach_ms
    at = np.searchsorted(bounds[:, 0], oldest, side="right") - 1
    covered: Booleans = (at >= 0) & (newest <= bounds[np.maximum(at, 0), 1])
    return covered
