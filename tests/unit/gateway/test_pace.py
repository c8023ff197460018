"""The limit of requests in flight follows how late the loop is, while there is a crowd."""

from __future__ import annotations

import asyncio
import time

import uvloop

from sluiceway.gateway.pace import BEAT_S, IN_FLIGHT_MIN, LATE_S, Pace

MOST, PLACES = 1024, 512


def crowded(pace: Pace, late_s: float, beats: int = 1) -> None:
    for _ in range(beats):
        pace._crowded = True
        pace.step(late_s)


def test_a_late_loop_lowers_the_limit_and_no_further_than_its_least() -> None:
    pace = Pace(MOST, PLACES)
    crowded(pace, 2 * LATE_S)
    assert pace.in_flight_max == MOST // 2
    crowded(pace, 1.25 * LATE_S)
    assert pace.in_flight_max == int(MOST / 2 / 1.25)
    crowded(pace, 10.0, beats=20)
    assert pace.in_flight_max == IN_FLIGHT_MIN


def test_a_loop_in_time_gives_it_back() -> None:
    pace = Pace(MOST, PLACES)
    crowded(pace, 10.0, beats=20)
    crowded(pace, 0.0)
    assert pace.in_flight_max == IN_FLIGHT_MIN + 1
    crowded(pace, LATE_S, beats=200)
    assert pace.in_flight_max == MOST


def test_without_a_crowd_a_late_loop_changes_nothing() -> None:
    pace = Pace(MOST, PLACES)
    pace.step(1.0)
    assert pace.in_flight_max == MOST


def test_places_to_wait_follow_what_was_acked() -> None:
    """As many as are let in in 20 ms, one tenant gets half; a lull does not take them away."""
    pace = Pace(MOST, PLACES)
    for _ in range(100):
        pace.acked = 200  # 10,000 a second
        crowded(pace, 0.0)
    assert 195 <= pace.waiting_max <= 200
    crowded(pace, 0.0, beats=50)
    assert pace.waiting_max >= 180
    slow = Pace(MOST, PLACES)
    crowded(slow, 0.0)
    assert slow.waiting_max == IN_FLIGHT_MIN
    assert Pace(10, 12).waiting_max == 12, "until there was a crowd, as configured"


def test_a_loop_that_is_kept_busy_is_noticed_and_the_beats_end() -> None:
    async def story() -> None:
        pace = Pace(IN_FLIGHT_MIN * 2, PLACES)
        pace.note_crowd()
        assert pace.in_flight_max == IN_FLIGHT_MIN * 2
        for _ in range(3):
            pace.note_crowd()
            time.sleep(BEAT_S + 5 * LATE_S)
            await asyncio.sleep(0.001)
        assert pace.in_flight_max < IN_FLIGHT_MIN * 2
        for _ in range(500):
            await asyncio.sleep(BEAT_S / 2)
            if not pace._beating:
                break
        assert not pace._beating
        assert pace.in_flight_max == IN_FLIGHT_MIN * 2

    uvloop.run(story())
