"""Refusals that are held: oldest first, as many as there is room for, none for too long."""

from __future__ import annotations

import asyncio

from fakes.limits import LoopClock, run_in_made_up_time
from sluiceway.gateway.held import BEAT_S, SPREAD_S, HeldRefusals


class FakeCrowd:
    def __init__(self) -> None:
        self.parked_count = self.places_free = 0

    def jitter(self) -> float:
        return 0.25


class FakeHolder:
    def __init__(self, name: int, gone: list[int]) -> None:
        self._name, self._gone = name, gone

    def let_go(self) -> None:
        self._gone.append(self._name)


def test_they_go_as_there_is_room_and_at_their_time() -> None:
    async def story(_: LoopClock) -> None:
        loop = asyncio.get_running_loop()
        crowd, gone = FakeCrowd(), list[int]()
        held = HeldRefusals(crowd, held_s_max=1.0)
        for number in range(10):
            held.hold(FakeHolder(number, gone), loop)
        await asyncio.sleep(0.5)
        assert gone == [], "no room"
        crowd.places_free = 3
        await asyncio.sleep(BEAT_S)
        assert gone == [0, 1, 2]
        crowd.places_free = 0
        await asyncio.sleep(0.3)
        assert len(held) == 7
        held.hold(FakeHolder(10, gone), loop)
        await asyncio.sleep(0.3)
        assert gone == list(range(10)), "held for a second"
        await asyncio.sleep(1.0)
        assert gone == list(range(11)) and len(held) == 0

    run_in_made_up_time(story)


def test_any_refusal_is_spread_over_a_second() -> None:
    assert HeldRefusals(FakeCrowd()).spread_s() == 0.25 * SPREAD_S
