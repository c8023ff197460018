"""Turns under threads: never more than there are, first come first served, none lost."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from sluiceway.errors import Cancelled, DeadlineExceeded
from sluiceway.kernels import CancelToken
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
