"""Turns under threads: never more than there are, first come first served, none lost."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluiceway.errors import Cancelled, DeadlineExceeded, Overloaded
from sluiceway.kernels import CancelToken
from sluiceway.query.api.tenant_turns import TenantTurns
from sluiceway.query.api.turns import Turns


def test_turns_go_to_who_came_first() -> None:
    turns = Turns(1, 8)
    served: list[int] = []

    def ask(number: int) -> None:
        with turns.turn(5, CancelToken()):
            served.append(number)

    with ThreadPoolExecutor(8) as pool, turns.turn(5, CancelToken()):
        for number in range(8):
            pool.submit(ask, number)
            while turns.waiting_count <= number:
                time.sleep(0.001)
    assert served == list(range(8))


def test_no_turn_is_lost_or_given_twice() -> None:
    """Deadlines, cancellations and turns that come at the same moment."""
    turns = Turns(3, 64)
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
                with turns.turn(chance.random() * 0.004, cancel):
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
    assert (turns.running_count, turns.waiting_count) == (0, 0)


def test_a_number_of_turns_may_change_while_they_are_held() -> None:
    turns, token = Turns(3, 8), CancelToken()
    held = [turns.turn(5, token) for _ in range(3)]
    for turn in held:
        turn.__enter__()
    turns.resize(1)
    served = threading.Event()

    def ask() -> None:
        with turns.turn(5, CancelToken()):
            served.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask)
        while not turns.waiting_count:
            time.sleep(0.001)
        for turn in held[:2]:
            turn.__exit__(None, None, None)
            assert not served.wait(0.02), "two of three given back leave one held, of one"
        turns.resize(2)
        assert served.wait(5), "a second turn goes to who waits"
    held[2].__exit__(None, None, None)
    assert turns.running_count == 0


def test_a_tenant_has_its_own_turns() -> None:
    """One tenant's queries wait for each other, nobody else's, and it leaves nothing behind."""
    turns = TenantTurns(waiting_max=1)
    token = CancelToken()
    with turns.turn("a", 1, 5, token):
        with turns.turn("b", 1, 5, token), turns.turn("c", None, 5, token):
            pass
        with pytest.raises(DeadlineExceeded), turns.turn("a", 1, 0.01, token):
            pass
        gone = CancelToken()
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(lambda: turns.turn("a", 1, 5, gone).__enter__())
            while not turns.waiting_count:
                time.sleep(0.001)
            with pytest.raises(Overloaded), turns.turn("a", 1, 5, token):
                pass
            gone.cancel()
            turns.wake_cancelled()
            with pytest.raises(Cancelled):
                waiting.result()
    assert turns.tenant_count == 0
