"""What grew lately."""

from sluiceway.alerts.recent import SAMPLE_S, WINDOW_S, Recent
from sluiceway.clock import ManualClock


def test_growth_is_news_for_a_window_and_then_no_more() -> None:
    clock = ManualClock()
    recent = Recent(clock)
    recent.note({"errors": 0.0})
    clock.advance(5_000)
    assert recent.note({"errors": 2.0, "points": 70.0}) == {"errors": 2.0, "points": 0.0}
    grown = []
    for _ in range(round(2 * WINDOW_S / SAMPLE_S)):
        clock.advance(round(SAMPLE_S * 1000))
        grown.append(recent.note({"errors": 2.0, "points": 71.0}))
    assert grown[0]["points"] == 1.0
    seen = [of["errors"] for of in grown]
    assert seen[0] == 2.0 and seen[-1] == 0.0
    assert sorted(seen, reverse=True) == seen
    assert len(recent._samples) <= WINDOW_S / SAMPLE_S + 2


def test_a_counter_that_begins_again_has_not_grown() -> None:
    recent = Recent(ManualClock())
    recent.note({"errors": 9.0})
    assert recent.note({"errors": 1.0}) == {"errors": 0.0}
