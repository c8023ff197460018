"""The router against the golden table that its documentation shows, and rules beside it."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.query.coverage import HOUR_MS, Coverage, Rollup, subtract
from sluiceway.query.promql.durations import UNITS_MS, parse_duration
from sluiceway.query.router import SEGMENTS_MAX, STRADDLE, Question, Segment, route

DOCS = Path(__file__).resolve().parents[3] / "docs" / "router.md"
DAY_MS = UNITS_MS["d"]
ROWS_MIN = 60


def rows_below(title: str) -> list[list[str]]:
    """The cells of the table under a heading of the documentation."""
    text = DOCS.read_text().split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def time_of(text: str) -> int:
    return -parse_duration(text[1:]) if text.startswith("-") else parse_duration(text)


def intervals(text: str) -> tuple[tuple[int, int], ...]:
    if text == "none":
        return ()
    pairs = (part.strip().split("..") for part in text.split(","))
    return tuple((time_of(start) if start else -(1 << 62), time_of(end)) for start, end in pairs)


def coverages() -> dict[str, Coverage]:
    told = {}
    for name, raw_from, warm, cold, dirty, sketches in rows_below("Coverages of the table"):
        tiers = (("warm", 60_000, warm), ("cold", HOUR_MS, cold))
        told[name] = Coverage(
            -(1 << 62) if raw_from == "always" else time_of(raw_from),
            tuple(
                Rollup(t, w, intervals(text), sketches == "yes")
                for t, w, text in tiers
                if text != "none"
            ),
            () if dirty == "none" else tuple(time_of(one) for one in dirty.split(", ")),
        )
    return told


def short(time_ms: int) -> str:
    days, rest = divmod(time_ms, DAY_MS)
    hours, rest = divmod(rest, HOUR_MS)
    assert rest == 0, "pieces meet at hours"
    return f"{days}d{hours}h" if hours else f"{days}d"


def describe(segment: Segment) -> str:
    steps = f"{segment.first}-{segment.last}" if segment.last > segment.first else segment.first
    words = [str(steps), segment.tier]
    if segment.tier == STRADDLE:
        last = segment.pieces[-1]
        words += [f"{piece.tier}<{short(piece.until_ms)}" for piece in segment.pieces[:-1]]
        words.append(last.tier)
    if segment.tier != "raw":
        bounds = [f"{segment.bound_ms // 1000}s"] if segment.bound_ms else []
        bounds += ["0.01"] if segment.sketched else []
        words.append(segment.exactness + (f"({', '.join(bounds)})" if bounds else ""))
    if segment.otherwise is not None:
        words += ["else", segment.otherwise]
    return " ".join(words)


def answer(row: list[str], known: dict[str, Coverage]) -> str:
    coverage, function, range_, first, step, steps = row[:6]
    plain = function.removesuffix(" anchored")
    question = Question(
        plain,
        time_of(first),
        time_of(step) if step != "0" else 0,
        int(steps),
        time_of(range_),
        extended=plain != function,
        reach_ms=300_000 if plain != function else 0,
    )
    return "; ".join(describe(segment) for segment in route(question, known[coverage]))


def test_the_documented_table_is_what_the_router_does() -> None:
    known, rows = coverages(), rows_below("Golden table")
    assert len(rows) >= ROWS_MIN
    wrong = [(row, told) for row in rows if (told := answer(row, known)) != row[6]]
    assert not wrong


hours = st.integers(0, 60)
spans = st.lists(st.tuples(hours, hours), max_size=4).map(
    lambda pairs: tuple((a * HOUR_MS, b * HOUR_MS) for a, b in pairs)
)


def held(gone: tuple[tuple[int, int], ...], until: int) -> tuple[tuple[int, int], ...]:
    left: tuple[tuple[int, int], ...] = ((-(1 << 40), until * HOUR_MS),)
    for one in gone:
        left = subtract(left, (min(one), max(one)))
    return left


@given(
    function=st.sampled_from(("last", "rate", "max_over_time", "quantile_over_time")),
    first=st.integers(0, 80 * 60),
    step=st.integers(1, 300),
    steps=st.integers(1, 60),
    range_=st.integers(1, 60 * 24),
    raw_from=hours,
    warm=st.tuples(spans, hours),
    cold=st.tuples(spans, hours),
    dirty=st.lists(hours, max_size=4),
)
def test_every_step_has_one_tier_that_holds_what_it_reads(
    function: str,
    first: int,
    step: int,
    steps: int,
    range_: int,
    raw_from: int,
    warm: tuple[tuple[tuple[int, int], ...], int],
    cold: tuple[tuple[tuple[int, int], ...], int],
    dirty: list[int],
) -> None:
    question = Question(function, first * 60_000, step * 60_000, steps, range_ * 60_000)
    rollups = (Rollup("warm", 60_000, held(*warm)), Rollup("cold", HOUR_MS, held(*cold)))
    coverage = Coverage(raw_from * HOUR_MS, rollups, tuple(hour * HOUR_MS for hour in dirty))
    segments = route(question, coverage)
    assert [n for s in segments for n in range(s.first, s.last + 1)] == list(range(steps))
    assert len(segments) <= max(SEGMENTS_MAX, 4 * (len(dirty) + 8))
    clean = {rollup.tier: rollup for rollup in coverage.clean()}
    ends = question.ends_ms()
    for segment in segments:
        for number in (segment.first, segment.last):
            end = int(ends[number])
            window = (end - question.range_ms, end)
            raw = window[0] >= coverage.raw_from_ms
            if segment.tier == STRADDLE:
                pieces = segment.pieces
                assert all(a.until_ms <= b.from_ms for a, b in pairwise(pieces))
                continue
            if segment.tier == "raw":
                # Raw answers what it holds, or what nobody does.
                lone = not any(holds(rollup.covered, window) for rollup in clean.values())
                assert raw or lone
                continue
            covered = clean[segment.tier].covered
            assert holds(covered, window) or not raw
            if segment.exactness == "exact":
                assert end % clean[segment.tier].window_ms == 0
            if segment.otherwise == "raw":
                assert raw


def holds(covered: tuple[tuple[int, int], ...], window: tuple[int, int]) -> bool:
    return any(start <= window[0] and window[1] <= until for start, until in covered)


@pytest.mark.parametrize("steps", [1, 61])
def test_without_rollups_raw_answers_all(steps: int) -> None:
    question = Question("rate", 10**12, 60_000, steps, 300_000)
    assert route(question, Coverage()) == [Segment("raw", 0, steps - 1)]
