"""A shard's place among those that have its partition: says when it answers, hands over when told.

Invariant: it says that it answers only once all that was durable at its start is applied; told to
hand over, it goes on applying and answering until its successor has said the same, or for a
bounded time. What it writes meanwhile the fence refuses, once the successor has the shard.
"""

import asyncio
import signal
import threading
from collections.abc import Callable

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, SluicewayError
from sluiceway.journal.owners import Owner, Owners
from sluiceway.processor.hot_shard import HotShard
from sluiceway.serve.life import Life
from sluiceway.services.offsite.document import Fenced
from sluiceway.services.offsite.follower import Offsite

HAND_OVER, KEEP = signal.SIGUSR1, signal.SIGUSR2
LOOK_S = 0.05
RETRY_S = 1.0
CATCH_UP_S_MAX = 2.0
"""Behind what was durable at the start: records go on coming, and the last ones are never in."""
LAST_S_MAX = 20.0
"""For the last checkpoint: without it the successor reads more of the log."""
DRAIN_S_MAX = 15.0
"""For who still asks once the successor answers."""
log = structlog.get_logger()


class Succession:
    """One shard's. A thread of its own; `begin` and the signals are the loop's."""

    def __init__(
        self,
        own: Owner,
        owners: Owners,
        worker: HotShard,
        offsite: Offsite | None,
        life: Life,
        clock: Clock,
        hand_over_s_max: float,
    ) -> None:
        self._own = own
        self._owners = owners
        self._worker = worker
        self._offsite = offsite
        self._life = life
        self._clock = clock
        self._hand_over_s_max = hand_over_s_max
        self._links: Callable[[], int] = lambda: 0
        self._near_end: Callable[[], bool] = lambda: True
        self._listens: Callable[[], bool] = lambda: True
        self._asked = threading.Event()
        self._stopping = threading.Event()
        self._fenced = False
        self._thread = threading.Thread(target=self._run, name="sluiceway-succession", daemon=True)

    def begin(
        self,
        links: Callable[[], int],
        near_end: Callable[[], bool],
        listens: Callable[[], bool],
    ) -> None:
        """`links` tells how many still ask this shard, `near_end` whether the log has no more,
        `listens` whether questions are taken."""
        self._links, self._near_end, self._listens = links, near_end, listens
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(HAND_OVER, self._asked.set)
        loop.add_signal_handler(KEEP, self._asked.clear)
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the thread has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def fenced(self, error: Exception) -> None:
        """Somebody has the shard: expected while it is handed over, else the end. Any thread."""
        self._fenced = True
        if not self._asked.is_set():
            self._life.give_up(error)

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        if not self._until(self._caught_up):
            return
        while not (self._stopping.is_set() or self._announced()):
            self._stopping.wait(RETRY_S)
        while self._until(self._asked.is_set):
            if self._hand_over():
                return

    def _until(self, happened: Callable[[], bool], timeout_s: float = float("inf")) -> bool:
        """False where it stops, or takes longer."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        while not self._stopping.is_set():
            if happened():
                return True
            if self._clock.monotonic_s() >= deadline_s:
                return False
            self._stopping.wait(LOOK_S)
        return False

    def _caught_up(self) -> bool:
        """Applied, but for what comes right now. Asked to hand over before, it has nothing that
        the one before has not."""
        if self._asked.is_set():
            self._life.end()
            return False
        if not (self._listens() and self._worker.recovered()):
            return False
        self._until(self._near_end, CATCH_UP_S_MAX)
        return True

    def _announced(self) -> bool:
        try:
            self._owners.announce(self._own)
        except BackendUnavailable as error:
            log.warning("owner_not_announced", error=str(error))
            return False
        log.info("owner_announced", partition=self._own.partition, term=self._own.term)
        return True

    def _hand_over(self) -> bool:
        """False where it is to be kept after all."""
        log.info("handing_over", partition=self._own.partition, term=self._own.term)
        began_s = self._clock.monotonic_s()
        self._last_checkpoint()
        left_s = self._hand_over_s_max - (self._clock.monotonic_s() - began_s)
        taken = self._until(lambda: self._followed() or not self._asked.is_set(), left_s)
        if not self._asked.is_set():
            if self._fenced:
                self._life.give_up(Fenced("the shard was taken over"))
            return self._fenced
        if taken:
            # Who asks for it looks elsewhere now; what is asked already is answered.
            self._until(lambda: self._links() == 0, DRAIN_S_MAX)
        gone_s = round(self._clock.monotonic_s() - began_s, 2)
        log.info("handed_over", partition=self._own.partition, followed=taken, seconds=gone_s)
        self._life.end()
        return True

    def _last_checkpoint(self) -> None:
        if self._offsite is None:
            return
        try:
            self._worker.flush(False, LAST_S_MAX)
        except (SluicewayError, OSError) as error:
            log.warning("last_checkpoint_missing", error=str(error))
            return
        self._until(self._is_offsite, LAST_S_MAX)

    def _is_offsite(self) -> bool:
        """Or it cannot be any more."""
        assert self._offsite is not None
        return self._fenced or self._offsite.behind(self._worker.version()) <= 0

    def _followed(self) -> bool:
        newest = self._owners.newest(self._own.partition)
        return newest is not None and newest.term > self._own.term
