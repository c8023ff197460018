"""Replays of dead letters: letters go through the door again, step by step.

Invariant: a letter is taken once. A step's bodies are acked, then the step is noted in a manifest;
a crash in between sends the same bodies again, which their batch keys drop. What is still refused
becomes a new letter, of a later record than the replay reaches; where there is no room for such and
the budgets are full, nothing is sent: a replay loses no letter that would have stayed.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Protocol

import structlog

from sluiceway.clock import Clock
from sluiceway.deadletters.interface import DeadLetters, Letter
from sluiceway.deadletters.replay import (
    REPLAYS_MAX,
    STEP_LETTERS_MAX,
    Step,
    kept,
    moved_on,
    put,
    selection_of,
    step_of,
    untaken,
)
from sluiceway.errors import BackendUnavailable, Overloaded, SluicewayError, TenantFault
from sluiceway.gateway.doors.interface import Payload
from sluiceway.gateway.receive import Receiver, Refused
from sluiceway.governance.letter_room import bytes_held, bytes_max, full_budgets
from sluiceway.governance.policy import Policy
from sluiceway.governance.reading import Reading
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1
from sluiceway.tiers.manifest import Replay, Version

PAYLOAD = Payload(FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY)
BODIES_AT_ONCE_MAX = 16
RETRY_S = 1.0
log = structlog.get_logger("replays")


class ReplayShard(Protocol):
    """What a replay needs of a shard. Thread-safe."""

    def version(self) -> Version: ...
    def recovered(self) -> bool: ...
    def governance(self) -> Reading: ...
    def policy(self) -> tuple[int, Policy]: ...
    def flush(self, merge_all: bool) -> None: ...
    def note_replays(self, replays: tuple[Replay, ...], points: int) -> None: ...


class Replays:
    """Runs what the manifest says is not over, also after a restart. On the loop's thread."""

    def __init__(
        self,
        shard: ReplayShard,
        letters: DeadLetters,
        receiver: Receiver,
        clock: Clock,
        step_letters_max: int = STEP_LETTERS_MAX,
    ) -> None:
        self._shard = shard
        self._letters = letters
        self._receiver = receiver
        self._clock = clock
        self._step_letters_max = step_letters_max
        self._walks: dict[int, Callable[[], Step | None]] = {}
        self._sent: dict[int, Step] = {}
        self._failed: dict[int, str] = {}
        self._not_before_s: dict[int, float] = {}
        self._wanted = asyncio.Event()
        self._starting = asyncio.Lock()
        # Who notes a replay read the list before: one at a time.
        self._noting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End where it stands; the next start goes on from the last note."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def all(self) -> tuple[Replay, ...]:
        return self._shard.version().replays

    def failure(self, replay: Replay) -> str | None:
        """Why it stands still; a replay asked for again goes on."""
        return self._failed.get(replay.number)

    async def ask(self, tenant: str, reason: str | None, since_ms: int, until_ms: int) -> Replay:
        """Begin a replay of all letters of records acked so far; the one that runs where it is the
        same. Durable when it returns.

        Raises: TenantFault 409 (another one runs), Overloaded, BackendUnavailable, OSError.
        """
        async with self._starting:
            for running in self.all():
                if running.tenant == tenant and not running.done:
                    wanted = (reason, since_ms, until_ms)
                    if wanted != (running.reason, running.since_ms, running.until_ms):
                        words = "another replay of this tenant's letters runs"
                        raise TenantFault(409, "sluiceway-replay-running", words)
                    self._failed.pop(running.number, None)
                    self._wanted.set()
                    return running
            await asyncio.to_thread(self._shard.flush, False)
            async with self._noting:
                version = self._shard.version()
                before = kept(version.replays, version.letters)
                if len(before) >= REPLAYS_MAX:
                    raise Overloaded(60.0, f"{REPLAYS_MAX} replays are remembered already")
                number, end = version.number + 1, version.next_sequence
                replay = Replay(number, tenant, reason, since_ms, until_ms, end)
                await asyncio.to_thread(self._shard.note_replays, put(before, replay), 0)
            self._wanted.set()
            return replay

    async def _run(self) -> None:
        while not await asyncio.to_thread(self._shard.recovered):
            await asyncio.sleep(RETRY_S / 10)
        while True:
            self._wanted.clear()
            now_s = asyncio.get_running_loop().time()
            waits_s = {
                replay: self._not_before_s.get(replay.number, 0.0) - now_s
                for replay in self.all()
                if not replay.done and replay.number not in self._failed
            }
            ready = [replay for replay, wait_s in waits_s.items() if wait_s <= 0]
            if not ready:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), min(waits_s.values(), default=None))
            for replay in ready:  # a step each in turn: none waits for another's end
                await self._guard(replay)

    async def _guard(self, replay: Replay) -> None:
        """One step; what is refused for now is sent again, the same bodies, when its time comes."""
        pause_s = RETRY_S
        try:
            await self._step(replay)
            return
        except Refused as error:
            pause_s = error.refusal.retry_after_s or RETRY_S
            log.info("replay_waits", number=replay.number, why=str(error), s=pause_s)
        except (BackendUnavailable, OSError) as error:
            log.warning("replay_waits", number=replay.number, error=str(error))
        except SluicewayError as error:
            self._failed[replay.number] = str(error)
            log.error("replay_failed", number=replay.number, error=str(error))
        self._walks.pop(replay.number, None)  # from the last note again, the same bodies
        self._not_before_s[replay.number] = asyncio.get_running_loop().time() + pause_s

    async def _step(self, replay: Replay) -> None:
        walk = self._walks.get(replay.number)
        if walk is None:
            walk = self._walks[replay.number] = self._walk(replay)
        step = await asyncio.to_thread(walk)
        if step is None:
            step = Step((), 0, 0, replay.end_sequence)
            del self._walks[replay.number]
        else:
            self._check_room(replay, step)
        bodies = step.bodies
        for first in range(0, len(bodies), BODIES_AT_ONCE_MAX):
            some = bodies[first : first + BODIES_AT_ONCE_MAX]
            taking = [self._receiver.take_again(replay.tenant, PAYLOAD, body) for body in some]
            # All are waited for, also where one fails: nothing of a step may come later than it.
            for outcome in await asyncio.gather(*taking, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome
        async with self._noting:
            after = moved_on(replay, step)
            replays = put(self.all(), after)
            await asyncio.to_thread(self._shard.note_replays, replays, step.points)
        self._sent[replay.number] = step
        if after.done:
            del self._sent[replay.number]
            log.info("replay_done", number=after.number, letters=after.letters)

    def _check_room(self, replay: Replay, step: Step) -> None:
        """Raises: TenantFault where the step's letters could end as discarded. The step before may
        not be applied yet: it is counted once more."""
        version, policy = self._shard.policy()
        reading, quota = self._shard.governance(), policy.dead_letters
        steps = [step, *([self._sent[replay.number]] if replay.number in self._sent else [])]
        held = bytes_held(reading, quota, replay.tenant, self._clock.now_ms())
        room = bytes_max(quota, replay.tenant) - held
        if reading.version != version or sum(one.letter_bytes for one in steps) <= room:
            return
        series = sum((Counter(one.series_of) for one in steps), Counter[str]())
        full = full_budgets(policy, reading, replay.tenant, series)
        if full:
            words = (
                f"budget {full[0]} would refuse letters again, and the quota of dead letters has no"
                " room for them: raise one of the two, then ask again"
            )
            raise TenantFault(409, "sluiceway-replay-room", words)

    def _walk(self, replay: Replay) -> Callable[[], Step | None]:
        """Steps from where the replay stands, one a call, None at the end. Each call blocks."""
        others = [other for other in self.all() if other.number != replay.number]
        records = groupby(untaken(self._matching(replay), others), key=lambda one: one.sequence)

        def next_step() -> Step | None:
            letters: list[Letter] = []
            for sequence, of_record in records:
                letters += of_record
                if len(letters) >= self._step_letters_max:
                    return step_of(letters, sequence + 1)
            return step_of(letters, letters[-1].sequence + 1) if letters else None

        return next_step

    def _matching(self, replay: Replay) -> Iterator[Letter]:
        files = self._shard.version().letters
        ahead = [file for file in files if file.last_sequence >= replay.next_sequence]
        cursor = f"{ahead[0].first_sequence}.0" if ahead else None
        while ahead:
            page = self._letters.browse(selection_of(replay), STEP_LETTERS_MAX, cursor)
            for letter in page.letters:
                if letter.sequence >= replay.end_sequence:
                    return
                if letter.sequence >= replay.next_sequence:
                    yield letter
            cursor = page.cursor
            if cursor is None:
                return
