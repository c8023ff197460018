"""How far queries and rollups stand back from acks where the cores are taken.

Invariant: nothing that can hold the event loop's GIL stands back but while it starts: put off, it
would put off the loop too.

A lower "nice" alone does not keep acks quick: a core whose evaluators are runnable lets one of them
have a whole tick (4 ms) now and then, and the loop is not moved to the other core meanwhile.
SCHED_IDLE gives way at once and its core counts as free for whoever wakes (sched(7); Linux 5.4's
`sched_idle_cpu`).
"""

import os
import threading
from collections.abc import Callable

from sluiceway.kernels import WorkLane
from sluiceway.query.limits import QueriesRun

NICE = 10
"""Where a thread cannot be told to run on idle time."""


def stand_back(queries_run: QueriesRun) -> None:
    """Run what the calling thread does, and the threads that it starts, on idle time. `shared`
    keeps the lower "nice" alone, for machines on which others take every core all the time."""
    if queries_run == "idle" and hasattr(os, "SCHED_IDLE"):
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
        except OSError:
            pass  # a sandbox forbids it
    os.nice(NICE)


def lane_behind(name: str, queries_run: QueriesRun) -> WorkLane:
    """A lane whose work stands back like queries do. Raises: BackendUnavailable."""
    made: list[WorkLane] = []
    start_behind(lambda: made.append(WorkLane(name)), queries_run)
    return made[0]


def start_behind(start: Callable[[], None], queries_run: QueriesRun) -> None:
    """Call `start` where the threads that it starts stand back. Blocks until it returns.

    Raises: what `start` raises.
    """
    failures: list[BaseException] = []

    def run() -> None:
        stand_back(queries_run)
        try:
            start()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="evaluate-start")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
