"""Deficit round robin: what lanes get differs by a quantum and a request at most."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.gateway.lanes import REQUEST_COST_BYTES, Lane, Parked, Room
from sluiceway.gateway.rounds import QUANTUM_BYTES, Fit, Rounds

bodies = st.integers(0, 5 * QUANTUM_BYTES)
lanes_of_bodies = st.lists(st.lists(bodies, min_size=1, max_size=30), min_size=1, max_size=6)


def parked(lane: Lane, body_bytes: int) -> Parked:
    return Parked(Room(lane, body_bytes, body_bytes), asyncio.Future(loop=LOOP))


LOOP = asyncio.new_event_loop()


@given(lanes_of_bodies)
def test_lanes_that_wait_all_along_get_the_same(queues: list[list[int]]) -> None:
    rounds = Rounds(lambda _: Fit.YES)
    lanes = [Lane(str(n)) for n in range(len(queues))]
    for lane, queue in zip(lanes, queues, strict=True):
        for body_bytes in queue:
            rounds.add(parked(lane, body_bytes))
    largest = max(max(queue) for queue in queues) + REQUEST_COST_BYTES
    served: Counter[str] = Counter()
    order: dict[str, list[int]] = {lane.tenant: [] for lane in lanes}
    while all(lane.queue for lane in lanes):
        one = rounds.take()
        assert one is not None
        served[one.room.lane.tenant] += one.cost_bytes
        order[one.room.lane.tenant].append(one.room.declared_bytes)
        if all(lane.queue for lane in lanes):
            spread = [served[lane.tenant] for lane in lanes]
            assert max(spread) - min(spread) <= QUANTUM_BYTES + largest
    while (one := rounds.take()) is not None:
        order[one.room.lane.tenant].append(one.room.declared_bytes)
    assert list(order.values()) == queues, "each in its own order, none lost"
    assert rounds.waiting == 0


@given(lanes_of_bodies, st.data())
def test_room_comes_and_goes(queues: list[list[int]], data: st.DataObject) -> None:
    """Whatever fits and whoever gives up: nobody is lost, served twice, or overtaken in a lane."""
    room: dict[str, Fit] = {}
    rounds = Rounds(lambda one: room[one.room.lane.tenant])
    lanes = [Lane(str(n)) for n in range(len(queues))]
    waiting = {lane.tenant: [] for lane in lanes}
    for lane, queue in zip(lanes, queues, strict=True):
        for body_bytes in queue:
            waiting[lane.tenant].append(one := parked(lane, body_bytes))
            rounds.add(one)
    fits = st.lists(st.sampled_from(Fit), min_size=len(lanes), max_size=len(lanes))
    for _ in range(data.draw(st.integers(0, 40))):
        room = dict(zip(waiting, data.draw(fits), strict=True))
        if data.draw(st.booleans()):
            queue = data.draw(st.sampled_from(list(waiting.values())))
            if queue:
                gone = queue.pop(data.draw(st.integers(0, len(queue) - 1)))
                assert rounds.withdraw(gone)
                assert not rounds.withdraw(gone)
        one = rounds.take()
        if one is None:
            blocked = {t for t, queue in waiting.items() if queue and room[t] is not Fit.YES}
            assert blocked == {t for t, queue in waiting.items() if queue} or rounds.stuck
        else:
            assert room[one.room.lane.tenant] is Fit.YES
            assert waiting[one.room.lane.tenant].pop(0) is one
    room = dict.fromkeys(waiting, Fit.YES)
    while (one := rounds.take()) is not None:
        assert waiting[one.room.lane.tenant].pop(0) is one
    assert not any(waiting.values())
    assert rounds.waiting == 0
