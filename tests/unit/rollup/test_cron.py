"""Cron's five fields, in UTC."""

from datetime import UTC, datetime

import pytest

from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.cron import parse_cron


def ms(*parts: int) -> int:
    year, month, day, hour, minute = parts
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("* * * * *", (2026, 11, 23, 1, 2), None),
        ("30 2 * * *", (2026, 11, 23, 2, 30), (2026, 11, 23, 2, 31)),
        ("*/15 0-6/2 * * *", (2026, 11, 23, 4, 45), (2026, 11, 23, 5, 45)),
        ("0 3 1,15 * *", (2026, 11, 15, 3, 0), (2026, 11, 16, 3, 0)),
        ("0 3 * * 0", (2026, 11, 22, 3, 0), (2026, 11, 23, 3, 0)),
        ("0 3 * * 7", (2026, 11, 22, 3, 0), (2026, 11, 23, 3, 0)),
        ("0 3 1 * 1", (2026, 11, 23, 3, 0), (2026, 11, 24, 3, 0)),
        ("0 3 1 * 1", (2026, 12, 1, 3, 0), (2026, 12, 2, 3, 0)),
    ],
)
def test_a_minute_matches_or_not(
    text: str, matching: tuple[int, ...], other: tuple[int, ...] | None
) -> None:
    cron = parse_cron(text)
    assert cron.matches(ms(*matching))
    assert other is None or not cron.matches(ms(*other))


def test_a_beginning_between_two_looks_is_seen_once() -> None:
    cron, at = parse_cron("30 2 * * *"), ms(2026, 11, 23, 2, 30)
    assert cron.begins_between(at - 60_000, at)
    assert cron.begins_between(at - 86_400_000 * 3, at - 3_600_000)
    assert not cron.begins_between(at, at + 3_600_000)


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "a * * * *", "5-1 * * * *", "*/0 * * * *"]
)
def test_nonsense_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"tiers\.schedule"):
        parse_cron(text)
    with pytest.raises(ValueError, match=r"tiers\.schedule"):
        TiersConfig(schedule=text).check()
