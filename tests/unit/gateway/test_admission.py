"""Admission by tenant, in made-up time: rates, room, turns, and when to come back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count

import pytest

from fakes.limits import LoopClock, limits_by, run_in_made_up_time
from sluiceway.errors import BackendUnavailable, Overloaded, TenantFault
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.lanes import Room
from sluiceway.gateway.limits import MIB, GatewayConfig
from sluiceway.gateway.quota.embedded import EmbeddedQuotaLimiter, QuotaConfig
from sluiceway.tenants.limits import WriteLimits

SMALL = GatewayConfig(requests_in_flight_max=10, parked_max=12, parked_s_max=2.0)


class Door:
    """An admission with its clock."""

    def __init__(self, limits: GatewayConfig, tenants: dict[str, WriteLimits], clock: LoopClock):
        self.clock = clock
        limits_of = limits_by(tenants)
        quotas = QuotaConfig(limits.tenants_max, limits.parked_s_max)
        limiter = EmbeddedQuotaLimiter(limits_of, quotas)
        self.admission = Admission(limits, clock, random.Random(3), limits_of, limiter)

    async def come(self, tenant: str, body_bytes: int = 100) -> Room:
        room = self.admission.enter(tenant, body_bytes, self.clock.monotonic_s())
        if not room.taken:
            await self.admission.park(room)
        assert room.taken
        return room

    async def pass_through(self, tenant: str, body_bytes: int = 100, held_s: float = 0.0) -> float:
        """When it came in."""
        room = await self.come(tenant, body_bytes)
        came_in_s = self.clock.monotonic_s()
        await asyncio.sleep(held_s)
        self.admission.leave(room, 1)
        return came_in_s


def at_the_door(
    story: Callable[[Door], Awaitable[None]],
    limits: GatewayConfig = SMALL,
    tenants: dict[str, WriteLimits] | None = None,
) -> None:
    async def main(clock: LoopClock) -> None:
        door = Door(limits, {} if tenants is None else tenants, clock)
        await story(door)
        assert door.admission.bytes_in_flight == 0
        assert door.admission.requests_in_flight == 0
        assert door.admission.parked_count == 0

    run_in_made_up_time(main)


def test_over_the_rate_waits_unread_then_503() -> None:
    async def story(door: Door) -> None:
        came = [asyncio.ensure_future(door.pass_through("a")) for _ in range(9)]
        refused = 0
        for one in came:
            try:
                came_in_s = await one
                assert came_in_s <= 2.0
            except Overloaded as error:
                refused += 1
                assert (error.status, error.id) == (503, "sluiceway-over-rate")
                assert "write.requests_per_s" in error.message
                assert error.retry_after_s > 0
        assert refused == 9 - 1 - 4  # a burst of one, and four within 2 s

    at_the_door(story, tenants={"a": WriteLimits(requests_per_s=2, requests_burst=1)})


def test_over_rate_refuse_is_429() -> None:
    async def story(door: Door) -> None:
        await door.pass_through("a")
        with pytest.raises(Overloaded) as caught:
            await door.pass_through("a")
        assert caught.value.status == 429
        assert door.admission.retry_after_s(caught.value, "a") >= 1

    limited = WriteLimits(bytes_per_s=10, over_rate="refuse")
    at_the_door(story, tenants={"a": limited})


def test_one_tenants_rate_is_nobody_elses() -> None:
    async def story(door: Door) -> None:
        noisy = [asyncio.ensure_future(door.pass_through("noisy")) for _ in range(100)]
        await asyncio.sleep(0)
        for n in range(50):
            assert await door.pass_through("quiet") == door.clock.monotonic_s(), n
        await asyncio.gather(*noisy, return_exceptions=True)

    at_the_door(story, tenants={"noisy": WriteLimits(requests_per_s=1)})


def test_a_tenants_own_limits_in_flight() -> None:
    async def story(door: Door) -> None:
        one = await door.come("a", 600)
        waiting = asyncio.ensure_future(door.come("a", 600))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        others = [await door.come("b", 600) for _ in range(4)]  # nobody waits behind that
        door.admission.leave(one, 1)
        door.admission.leave(await waiting, 1)
        for other in others:
            door.admission.leave(other, 1)

    at_the_door(story, tenants={"a": WriteLimits(bytes_in_flight_max=1000)})
    at_the_door(story, tenants={"a": WriteLimits(requests_in_flight_max=1)})
    at_the_door(story, tenants={"a": WriteLimits(bytes_in_flight_max=1)})


def test_a_tenants_own_limit_of_a_body() -> None:
    async def story(door: Door) -> None:
        with pytest.raises(TenantFault) as caught:
            await door.come("a", 1001)
        assert caught.value.status == 413
        await door.pass_through("a", 1000)
        await door.pass_through("b", 1001)
        # A replay's bodies are ours: the limit may be younger than what it brings.
        again = door.admission.enter("a", 1001, door.clock.monotonic_s(), any_size=True)
        assert again.taken
        door.admission.leave(again, 1)

    at_the_door(story, tenants={"a": WriteLimits(body_bytes_max=1000)})


def test_room_is_left_for_whoever_comes() -> None:
    async def story(door: Door) -> None:
        held = [await door.come("noisy") for _ in range(8)]  # 4/5 of 10
        parked = [asyncio.ensure_future(door.come("noisy")) for _ in range(20)]
        await asyncio.sleep(0)
        assert door.admission.parked_count == 6  # half of 12
        assert await door.pass_through("quiet") == 0.0
        for room in held:
            door.admission.leave(room, 1)
        for one in parked:
            try:
                door.admission.leave(await one, 1)
            except Overloaded as error:
                assert error.status == 503

    at_the_door(story)


def test_places_to_park_are_left_for_whoever_comes() -> None:
    async def story(door: Door) -> None:
        held = [await door.come(str(n)) for n in range(10)]
        tasks: list[asyncio.Future[Room]] = []
        for tenant, places in (("a", 6), ("b", 3), ("c", 2), ("d", 1), ("e", 0)):
            before = door.admission.parked_count
            tasks += [asyncio.ensure_future(door.come(tenant)) for _ in range(20)]
            await asyncio.sleep(0)
            assert door.admission.parked_count - before == places
        for room in held:
            door.admission.leave(room, 1)
        for one in tasks:
            try:
                door.admission.leave(await one, 1)
            except Overloaded:
                pass

    at_the_door(story)


def test_whoever_waits_goes_in_by_turns() -> None:
    """A has six parked before B's two come; B's are second and fourth."""

    async def story(door: Door) -> None:
        held = [await door.come(f"x{n}") for n in range(10)]
        came: list[str] = []

        async def one(tenant: str) -> None:
            room = await door.come(tenant, 60_000)
            came.append(tenant)
            await asyncio.sleep(0.1)
            door.admission.leave(room, 1)

        tasks = [asyncio.ensure_future(one("a")) for _ in range(5)]
        await asyncio.sleep(0)
        tasks += [asyncio.ensure_future(one("b")) for _ in range(2)]
        await asyncio.sleep(0)
        for room in held:
            door.admission.leave(room, 1)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert came == ["a", "b", "a", "b", "a", "a", "a"]

    at_the_door(story)


def test_no_room_in_time() -> None:
    async def story(door: Door) -> None:
        held = [await door.come(str(n)) for n in range(10)]
        with pytest.raises(Overloaded, match="in time"):
            await door.come("late")
        assert door.clock.monotonic_s() == pytest.approx(2.0)
        for room in held:
            door.admission.leave(room, None)

    at_the_door(story)


def test_who_gives_up_lets_the_next_one_in() -> None:
    async def story(door: Door) -> None:
        big = await door.come("a", 9 * MIB)
        blocking = asyncio.ensure_future(door.come("b", 2 * MIB))
        await asyncio.sleep(0)
        behind = asyncio.ensure_future(door.come("c", 1000))
        await asyncio.sleep(0.1)
        assert not behind.done(), "nobody overtakes the one that needs the most room"
        blocking.cancel()
        door.admission.leave(await behind, 1)
        door.admission.leave(big, 1)
        assert blocking.cancelled()

    at_the_door(story, replace(SMALL, bodies_in_flight_bytes_max=10 * MIB))


def test_a_refused_request_is_not_charged() -> None:
    async def story(door: Door) -> None:
        held = [await door.come(str(n)) for n in range(10)]
        for _ in range(5):
            with pytest.raises(Overloaded, match="in time"):
                await door.come("a")
        for room in held:
            door.admission.leave(room, 1)
        for _ in range(3):
            assert await door.pass_through("a") == door.clock.monotonic_s()
        with pytest.raises(Overloaded, match="tenant's limit"):
            await door.come("a")

    limited = WriteLimits(requests_per_s=1, requests_burst=3)
    at_the_door(story, replace(SMALL, parked_s_max=0.01), {"a": limited})


def test_undeclared_bytes_are_charged() -> None:
    async def story(door: Door) -> None:
        room = await door.come("a", 0)
        door.admission.grow(room, 5000)
        assert door.admission.bytes_in_flight == 5000
        door.admission.leave(room, 1)
        with pytest.raises(Overloaded, match=r"write\.bytes_per_s"):
            await door.come("a", 0)
        room = await door.come("b", 0)
        with pytest.raises(Overloaded, match="at their limit"):
            door.admission.grow(room, 200 * MIB)
        door.admission.leave(room, None)

    at_the_door(story, tenants={"a": WriteLimits(bytes_per_s=1000)})


def test_points_are_settled_after_the_ack() -> None:
    async def story(door: Door) -> None:
        for points in (1000, 0, 0):
            room = await door.come("a")
            door.admission.leave(room, points)
            if points:
                with pytest.raises(Overloaded, match=r"write\.points_per_s"):
                    await door.come("a")
                await asyncio.sleep(20.0)
        room = await door.come("a")
        door.admission.leave(room, None)  # the journal failed: its points are not charged

    at_the_door(story, tenants={"a": WriteLimits(points_per_s=100, points_burst=100)})


def test_changed_limits_hold_within_a_second() -> None:
    tenants = {"a": WriteLimits()}

    async def story(door: Door) -> None:
        for _ in range(100):
            await door.pass_through("a")
        tenants["a"] = WriteLimits(requests_per_s=1, over_rate="refuse", body_bytes_max=500)
        await asyncio.sleep(1.0)
        with pytest.raises(TenantFault):
            await door.pass_through("a", 501)
        with pytest.raises(Overloaded) as caught:
            for _ in range(5):
                room = door.admission.enter("a", 100, door.clock.monotonic_s())
                if room.taken:
                    door.admission.leave(room, 1)
        assert caught.value.status == 429
        del tenants["a"]
        await asyncio.sleep(1.0)
        for _ in range(100):
            await door.pass_through("a")

    at_the_door(story, tenants=tenants)


def test_tenants_at_the_door_are_bounded() -> None:
    async def story(door: Door) -> None:
        held = [await door.come(str(n)) for n in range(5)]
        with pytest.raises(Overloaded, match="5 tenants"):
            await door.come("one more")
        door.admission.leave(held.pop(), 1)
        await door.pass_through("one more")
        for n in range(100):
            await door.pass_through(f"n{n}")
        for room in held:
            door.admission.leave(room, 1)

    at_the_door(story, replace(SMALL, tenants_max=5))


def test_who_is_refused_behind_others_comes_back_later() -> None:
    """5,000 refused at 1,000 a second are told to come back over the five seconds that takes."""

    async def story(door: Door) -> None:
        told: Counter[int] = Counter()

        async def one() -> None:
            try:
                await door.pass_through("a")
            except Overloaded as error:
                told[door.admission.retry_after_s(error, "a")] += 1

        await asyncio.gather(*(one() for _ in range(5000)))
        assert 4900 < sum(told.values()) < 5000
        back = [told[second] for second in range(1, 11)]
        assert sum(back) == sum(told.values())
        assert max(back) <= 1600, "what can be done in a second, and half as much again"

    at_the_door(story, tenants={"a": WriteLimits(requests_per_s=1000, requests_burst=1)})


def test_every_refusal_of_a_tenant_is_spread() -> None:
    async def story(door: Door) -> None:
        room = await door.come("a")
        door.admission.leave(room, 1)
        for error in (Overloaded(3.0, "the disk is full"), BackendUnavailable("EIO")):
            told = {door.admission.retry_after_s(error, "a") for _ in range(300)}
            assert min(told) >= 1
            assert max(told) <= 30
            assert len(told) > 2
        told = {door.admission.retry_after_s(error, tenant) for tenant in (None, "unknown")}
        assert min(told) >= 1

    at_the_door(story)


def test_full_says_what_enter_and_park_would_end_in() -> None:
    """And takes nothing: not where there is room, nor a place, nor where a rate decides."""
    rounds = count(1.0)

    async def story(door: Door) -> None:
        def full(tenant: str = "a", body_bytes: int = 100) -> Overloaded | None:
            return door.admission.full(tenant, body_bytes, door.clock.monotonic_s(), next(rounds))

        assert full() is None, "nobody was here yet"
        held = []
        while True:
            room = door.admission.enter("a", 100, door.clock.monotonic_s())
            if not room.taken:
                break
            held.append(room)
            assert full() is None
        waiting = []
        for _ in range(SMALL.parked_max // 2):
            assert full() is None, "there is a place to wait"
            waiting.append(asyncio.ensure_future(door.pass_through("a")))
            await asyncio.sleep(0)
        told = full()
        assert told is not None
        with pytest.raises(Overloaded, match=told.message):
            await door.come("a")
        assert full("b") is None and full("rated") is None and full(body_bytes=1 << 40) is None
        for room in held:
            door.admission.leave(room, 1)
        await asyncio.gather(*waiting)
        assert full() is None

    at_the_door(story, tenants={"rated": WriteLimits(requests_per_s=1)})


def test_full_counts_those_that_came_in_the_same_round() -> None:
    async def story(door: Door) -> None:
        def full(tenant: str, round_s: float) -> Overloaded | None:
            return door.admission.full(tenant, 100, door.clock.monotonic_s(), round_s)

        for tenant in "ab":
            door.admission.leave(await door.come(tenant), 1)
        told = [full("a", 1.0) is None for _ in range(40)]
        may_come = told.index(False)
        # One tenant's 4/5 of the room, and half of the places.
        assert 8 <= may_come - SMALL.parked_max // 2 <= SMALL.requests_in_flight_max
        assert not any(told[may_come:])
        assert full("b", 1.0) is None, "another tenant's do not count"
        assert full("a", 2.0) is None, "nor another round's: they are in, or wait"

    at_the_door(story)
