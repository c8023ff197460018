"""Turns under threads: never more than there are, first come first served, none lost."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sluiceway.clock import ManualClock, SystemClock
from sluiceway.errors import Cancelled, DeadlineExceeded, Overloaded
from sluiceway.kernels import CancelToken
from sluiceway.query.api.turns import FairTurns
from sluiceway.query.limits import QueryConfig


def fair(concurrency_max: int, **more: int) -> FairTurns:
    given = {"tenant_concurrency_max": concurrency_max, **more}
    return FairTurns(QueryConfig(concurrency_max=concurrency_max, **given), SystemClock())


def wait_for(condition: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.001)


def test_turns_go_to_who_came_first() -> None:
    turns = fair(1)
    served: list[int] = []

    def ask(number: int) -> None:
        with turns.turn("a", None, 5, CancelToken()):
            served.append(number)

    with ThreadPoolExecutor(8) as pool, turns.turn("a", None, 5, CancelToken()):
        for number in range(8):
            pool.submit(ask, number)
            while turns.waiting_count <= number:
                time.sleep(0.001)
    assert served == list(range(8))


def test_no_turn_is_lost_or_given_twice() -> None:
    """Deadlines, cancellations and turns that come at the same moment."""
    turns = fair(3)
    lock, running, most = threading.Lock(), 0, 0
    ends: dict[str, int] = {"served": 0, "late": 0, "gone": 0}

    def ask(seed: int) -> None:
        nonlocal running, most
        chance = random.Random(seed)
        for _ in range(100):
            cancel = CancelToken()
            if chance.random() < 0.3:
                threading.Timer(chance.random() * 0.004, withdraw, (cancel,)).start()
            try:
                tenant = chance.choice("abc")
                with turns.turn(tenant, None, chance.random() * 0.004, cancel):
                    with lock:
                        running += 1
                        most = max(most, running)
                    time.sleep(chance.random() * 0.001)
                    with lock:
                        running -= 1
                end = "served"
            except DeadlineExceeded:
                end = "late"
            except Cancelled:
                end = "gone"
            with lock:
                ends[end] += 1

    def withdraw(cancel: CancelToken) -> None:
        cancel.cancel()
        turns.wake_cancelled()

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(ask, seed) for seed in range(16)]:
            future.result(60)
    assert sum(ends.values()) == 1600
    assert all(ends.values()), ends
    assert most == 3
    assert (turns.running_count, turns.waiting_count, turns.tenant_count) == (0, 0, 0)


def test_a_number_of_turns_may_change_while_they_are_held() -> None:
    turns, token = fair(8), CancelToken()
    held = [turns.turn("a", 3, 5, token) for _ in range(3)]
    for turn in held:
        turn.__enter__()
    served = threading.Event()

    def ask(own_max: int) -> None:
        with turns.turn("a", own_max, 5, CancelToken()):
            served.set()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(ask, 1)
        wait_for(lambda: turns.waiting_count == 1)
        for turn in held[:2]:
            turn.__exit__(None, None, None)
            assert not served.wait(0.02), "two of three given back leave one held, of one"
        pool.submit(ask, 2)
        assert served.wait(5), "a second turn goes to who waits"
    held[2].__exit__(None, None, None)
    assert (turns.running_count, turns.tenant_count) == (0, 0)


def test_a_tenant_has_its_own_turns() -> None:
    """One tenant's queries wait for each other, nobody else's, and it leaves nothing behind."""
    turns, token = fair(4, tenant_waiting_max=1), CancelToken()
    with turns.turn("a", 1, 5, token):
        with turns.turn("b", 1, 5, token), turns.turn("c", None, 5, token):
            pass
        with pytest.raises(DeadlineExceeded), turns.turn("a", 1, 0.01, token):
            pass
        gone = CancelToken()
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(lambda: turns.turn("a", 1, 5, gone).__enter__())
            wait_for(lambda: turns.waiting_count == 1)
            with pytest.raises(Overloaded, match="tenant_waiting_max"):
                turns.turn("a", 1, 5, token).__enter__()
            gone.cancel()
            turns.wake_cancelled()
            with pytest.raises(Cancelled):
                waiting.result()
    assert turns.tenant_count == 0


def test_one_tenant_never_holds_all_turns() -> None:
    turns, token = fair(3, tenant_concurrency_max=2), CancelToken()
    with turns.turn("heavy", None, 5, token), turns.turn("heavy", None, 5, token):
        with pytest.raises(DeadlineExceeded):
            turns.turn("heavy", None, 0.01, token).__enter__()
        with turns.turn("light", None, 0.01, token):
            pass


def test_who_fills_the_queue_makes_room_for_who_does_not() -> None:
    turns, token = fair(1, waiting_max=3), CancelToken()
    ends: list[str] = []

    def ask(tenant: str) -> None:
        try:
            with turns.turn(tenant, None, 5, CancelToken()):
                ends.append(tenant)
        except Overloaded as error:
            ends.append(f"{tenant} away")
            assert "query.waiting_max = 3" in error.message

    with ThreadPoolExecutor(8) as pool, turns.turn("held", None, 5, token):
        for number in range(3):
            pool.submit(ask, "heavy")
            wait_for(lambda number=number: turns.waiting_count > number)
        pool.submit(ask, "light")
        wait_for(lambda: ends == ["heavy away"])
        ask("heavy")
        assert ends == ["heavy away"] * 2, "itself, where it is the one that fills the queue"
    assert ends.count("light") == 1 and ends.count("heavy") == 2
    assert (turns.waiting_count, turns.tenant_count) == (0, 0)


@pytest.mark.parametrize("heavy_s", [0.002, 0.02])
def test_shares_are_equal_beside_a_tenant_that_asks_a_hundred_times_as_much(
    heavy_s: float,
) -> None:
    """Turns by a clock of our own: every tenant always has one query waiting, one has all that the
    queue takes. Nobody sleeps, so the order alone decides."""
    others = [f"tenant{number}" for number in range(19)]
    served = simulate(fair_share={**dict.fromkeys(others, 0.002), "heavy": heavy_s}, ends_s=20.0)
    shares = [served[tenant] for tenant in others]
    assert jain(shares) >= 0.99, shares
    assert served["heavy"] <= 1.1 * max(shares) + heavy_s, "seconds, not queries, are shared"


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def simulate(fair_share: dict[str, float], ends_s: float) -> dict[str, float]:
    """Seconds of turns by tenant, on one thread: two turns, queries that last as long as given."""
    clock = ManualClock(0)
    turns = FairTurns(QueryConfig(concurrency_max=2, tenant_concurrency_max=2), clock)
    token, asked = CancelToken(), dict[str, list[Any]]()
    running: list[tuple[float, str, Any]] = []
    served = dict.fromkeys(fair_share, 0.0)

    def ask(tenant: str) -> None:
        asked.setdefault(tenant, []).append(turns._ask(tenant, None, token))

    for tenant in fair_share:
        for _ in range(30 if tenant == "heavy" else 1):
            ask(tenant)
    while clock.monotonic_s() < ends_s:
        for tenant, places in asked.items():
            for place in [place for place in places if not place[1].bell.locked()]:
                places.remove(place)
                running.append((clock.monotonic_s() + fair_share[tenant], tenant, place))
        running.sort(key=lambda turn: turn[0])
        until_s, tenant, (seat, waiter) = running.pop(0)
        clock.advance(max(0, round((until_s - clock.monotonic_s()) * 1000)))
        ask(tenant)  # closed loop: the next is there before the last one ends
        turns._give(tenant, seat, waiter)
        served[tenant] += fair_share[tenant]
    return served
