"""The partitions that a member of the group serves: a shard's process for each, kept alive.

Invariant: one process a partition at most, and of a partition that the group gives to somebody else
none is started; one that runs then hands over, and ends when its successor answers. The processes
end with this one, however it ends.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from sluiceway.clock import Clock
from sluiceway.serve.pulse import Pulse
from sluiceway.serve.succession import HAND_OVER, KEEP
from sluiceway.services.offsite.document import Fenced

LOOK_S = 0.5
RESTART_S_MIN, RESTART_S_MAX = 0.1, 5.0
STEADY_S = 10.0
"""A process that lived this long is started again at once."""
FENCED_REST_S = 10.0
"""Another has the shard, which the group said is ours: longer than the group takes to see who is
there, or two would take it from each other."""
STOP_S_MORE = 5.0
log = structlog.get_logger()


class Group(Protocol):
    """What journal/kafka/membership.py says."""

    def assigned(self) -> frozenset[int] | None: ...


@dataclass(slots=True)
class Held:
    """A partition's process, or when there may be one."""

    process: asyncio.subprocess.Process | None = None
    pulse: Pulse | None = None
    """The process'."""
    leaving: bool = False
    kept: bool = False
    """It was to leave, and was told to stay."""
    rests_until_s: float = 0.0
    pause_s: float = RESTART_S_MIN


@dataclass(slots=True)
class Child:
    """A process that has no settings yet, and how to hear that it lives."""

    process: asyncio.subprocess.Process
    pulse: Pulse


class Partitions:
    """All of one member's. Its loop's."""

    def __init__(
        self,
        group: Group,
        command: tuple[str, ...],
        settings_of: Callable[[int], dict[str, Any]],
        held_max: int,
        silent_s_max: float,
        clock: Clock,
    ) -> None:
        """`silent_s_max`: a process whose loop has served and says nothing for longer hangs: it is
        killed, and started again."""
        self._group = group
        self._command = command
        self._settings_of = settings_of
        self._held_max = held_max
        self._silent_looks_max = max(1, round(silent_s_max / LOOK_S))
        self._clock = clock
        self._held: dict[int, Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ending = False
        self._warm: Child | None = None
        """One that has its modules and waits for its settings: half of a takeover's time."""
        self.starts = 0

    def wake(self) -> None:
        """The group may say another thing. Any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._woken.set)

    def running(self) -> list[int]:
        return sorted(number for number, held in self._held.items() if held.process is not None)

    def leaving(self) -> list[int]:
        return sorted(number for number, held in self._held.items() if held.leaving)

    def too_many(self) -> list[int]:
        """Partitions that are ours by the group and that nobody serves: more than we may hold."""
        assigned = self._group.assigned() or frozenset()
        return sorted(assigned - wanted(assigned, self.running(), self._held_max))

    async def watch(self) -> None:
        """Do what the group says until cancelled."""
        while True:
            self._follow()
            await self._warm_up()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), LOOK_S)
                self._woken.clear()
                continue  # woken early: no look at who is silent
            self._end_silent()

    def _follow(self) -> None:
        assigned = self._group.assigned()
        if assigned is None or self._ending:
            return  # nobody knows: what runs goes on, the fence says when it must not
        ours = wanted(assigned, self.running(), self._held_max)
        now_s = self._clock.monotonic_s()
        for number in ours:
            held = self._held.setdefault(number, Held())
            if held.process is None and now_s >= held.rests_until_s:
                held.rests_until_s = float("inf")  # until it has ended
                self._run(number, held)
            elif held.leaving:
                held.leaving, held.kept = False, True
                self._signal(held, KEEP)
        for number in [number for number in self._held if number not in ours]:
            held = self._held[number]
            if held.process is None and held.rests_until_s < float("inf"):
                del self._held[number]
            elif held.process is not None and not held.leaving:
                held.leaving, held.kept = True, False
                self._signal(held, HAND_OVER)

    def _end_silent(self) -> None:
        """A process that hangs holds its partition and answers nothing: another may do better."""
        for number, held in self._held.items():
            if held.pulse is not None and held.pulse.look() > self._silent_looks_max:
                log.error("partition_hangs", partition=number)
                self._signal(held, signal.SIGKILL)

    async def _warm_up(self) -> None:
        spent = self._warm is None or self._warm.process.returncode is not None
        if spent and not self._ending and len(self.running()) < self._held_max:
            if self._warm is not None:
                self._warm.pulse.close()
                self._warm = None
            with contextlib.suppress(OSError):  # the one that is needed says why
                self._warm = await self._spawn()

    async def _spawn(self) -> Child:
        pulse = Pulse()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=(pulse.writes,),
            )
        except BaseException:
            pulse.close()
            raise
        finally:
            pulse.begun()
        return Child(process, pulse)

    def _run(self, number: int, held: Held) -> None:
        task = asyncio.create_task(self._live(number, held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, number: int, held: Held) -> None:
        """One process from its start to its end."""
        self.starts += 1
        began_s = self._clock.monotonic_s()
        held.leaving = held.kept = False
        status: int | None = None
        try:
            warm, self._warm = self._warm, None
            if warm is None or warm.process.returncode is not None:
                if warm is not None:
                    warm.pulse.close()
                warm = await self._spawn()
            held.process, held.pulse = warm.process, warm.pulse
            log.info("partition_begun", partition=number, process=held.process.pid)
            settings = {
                "parent_id": os.getpid(),
                "pulse": held.pulse.writes,
                "config": self._settings_of(number),
            }
            await held.process.communicate(json.dumps(settings).encode())
            status = held.process.returncode
        except OSError as error:
            log.error("partition_not_started", partition=number, error=str(error))
        if held.pulse is not None:
            held.pulse.close()
        held.process = held.pulse = None
        now_s = self._clock.monotonic_s()
        if now_s - began_s > STEADY_S:
            held.pause_s = RESTART_S_MIN
        rest_s = held.pause_s
        if status == Fenced.exit_status:
            rest_s = 0.0 if held.kept else FENCED_REST_S
        else:
            held.pause_s = min(held.pause_s * 2, RESTART_S_MAX)
        log.info("partition_ended", partition=number, status=status, left=held.leaving)
        held.leaving, held.rests_until_s = False, now_s + rest_s
        self._woken.set()

    def _signal(self, held: Held, number: signal.Signals) -> None:
        if held.process is not None:
            with contextlib.suppress(ProcessLookupError):
                held.process.send_signal(number)

    async def end(self, handed_over_s_max: float, drain_s_max: float) -> None:
        """Wait for those that hand over, then end all."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(handed_over_s_max):
                while self.running():
                    await asyncio.sleep(LOOK_S / 5)
        self._ending = True
        if self._warm is not None and self._warm.process.stdin is not None:
            self._warm.process.stdin.close()  # nothing to serve: it ends
            self._warm.pulse.close()
        for number, how in ((signal.SIGTERM, drain_s_max + STOP_S_MORE), (signal.SIGKILL, 5.0)):
            for held in self._held.values():
                self._signal(held, number)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=how)


def wanted(assigned: Iterable[int], running: list[int], held_max: int) -> frozenset[int]:
    """Which to serve: those that run already first."""
    ranked = sorted(assigned, key=lambda number: (number not in running, number))
    return frozenset(ranked[:held_max])
