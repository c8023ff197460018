"""A member's processes follow the group, with small real processes in the shards' place."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from sluiceway.clock import SystemClock
from sluiceway.serve import member
from sluiceway.serve.member import Partitions, wanted

STANDS_IN = """
import json, os, signal, sys, time
told = sys.stdin.read()
if not told:
    sys.exit(0)
told = json.loads(told)
settings = told["config"]
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(3))
print("up", settings["number"], flush=True)
if settings["ends"] is not None:
    sys.exit(settings["ends"])
while settings["beats"]:
    os.write(told["pulse"], b".")
    time.sleep(0.1)
time.sleep(60)
"""


class Group:
    def __init__(self) -> None:
        self.ours: frozenset[int] | None = None

    def assigned(self) -> frozenset[int] | None:
        return self.ours


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def run(
    act: Callable[[Partitions, Group], Awaitable[None]],
    ends: int | None = None,
    beats: bool = False,
    silent_s_max: float = 60.0,
) -> None:
    async def all_of_it() -> None:
        group = Group()

        def settings(number: int) -> dict[str, Any]:
            return {"number": number, "ends": ends, "beats": beats}

        command = (sys.executable, "-c", STANDS_IN)
        partitions = Partitions(group, command, settings, 2, silent_s_max, SystemClock())
        watching = asyncio.create_task(partitions.watch())
        await act(partitions, group)
        await partitions.end(0.0, 1.0)
        assert partitions.running() == []
        watching.cancel()

    asyncio.run(all_of_it())


def test_processes_follow_the_group() -> None:
    async def act(partitions: Partitions, group: Group) -> None:
        await asyncio.sleep(0.1)
        assert partitions.running() == []  # nobody has said anything
        group.ours = frozenset({4, 7})
        partitions.wake()
        await until(lambda: partitions.running() == [4, 7])
        await asyncio.sleep(0.3)  # they hear signals now
        group.ours = None
        partitions.wake()
        await asyncio.sleep(0.1)
        assert partitions.running() == [4, 7]  # and who cannot be asked ends none
        group.ours = frozenset({7})
        partitions.wake()
        await until(lambda: partitions.running() == [7])

    run(act)


def test_more_than_it_may_hold_are_not_served_and_told() -> None:
    async def act(partitions: Partitions, group: Group) -> None:
        group.ours = frozenset({1, 2, 3})
        partitions.wake()
        await until(lambda: partitions.running() == [1, 2])
        assert partitions.too_many() == [3]

    run(act)


def test_one_that_was_fenced_rests(monkeypatch: Any) -> None:
    monkeypatch.setattr(member, "FENCED_REST_S", 1.0)

    async def act(partitions: Partitions, group: Group) -> None:
        group.ours = frozenset({1})
        partitions.wake()
        await until(lambda: partitions.starts == 1 and partitions.running() == [])
        await asyncio.sleep(0.5)
        assert partitions.starts == 1
        group.ours = frozenset()  # the group has heard of it
        partitions.wake()
        await asyncio.sleep(0.1)
        group.ours = frozenset({1})  # and says that it is ours again
        partitions.wake()
        await until(lambda: partitions.starts == 2)

    run(act, ends=3)


def test_one_that_fell_is_started_again() -> None:
    async def act(partitions: Partitions, group: Group) -> None:
        group.ours = frozenset({1})
        partitions.wake()
        await until(lambda: partitions.starts >= 3)

    run(act, ends=1)


def test_one_that_hangs_is_ended_and_started_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(member, "LOOK_S", 0.2)

    async def act(partitions: Partitions, group: Group) -> None:
        group.ours = frozenset({1})
        partitions.wake()
        await until(lambda: partitions.running() == [1])
        await asyncio.sleep(2.0)
        assert partitions.starts == 1  # it beats
        process = partitions._held[1].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        await until(lambda: partitions.starts == 2 and partitions.running() == [1])
        assert process.returncode == -signal.SIGKILL

    run(act, beats=True, silent_s_max=1.0)


def test_one_that_has_not_begun_to_beat_may_take_its_time(monkeypatch: Any) -> None:
    monkeypatch.setattr(member, "LOOK_S", 0.1)

    async def act(partitions: Partitions, group: Group) -> None:
        group.ours = frozenset({1})
        partitions.wake()
        await until(lambda: partitions.running() == [1])
        await asyncio.sleep(1.0)
        assert partitions.starts == 1

    run(act, silent_s_max=0.2)


def test_those_that_run_are_served_first() -> None:
    assert wanted([1, 2, 3], [3], 2) == {1, 3}
    assert wanted([1, 2], [], 2) == {1, 2}
    assert wanted([], [5], 2) == frozenset()
