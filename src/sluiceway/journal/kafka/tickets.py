"""Tickets of requests, and which of them are decided.

Invariant: tickets are dense; `decided` never passes one that is open; each failure is told once.
"""

import os
import threading
from collections.abc import Iterable

RUNS_MAX = 128
"""Runs of failed tickets that one `drain` tells: whoever asks remembers a few hundred."""


class Tickets:
    """Any thread; the event is readable when `drain` has something to say."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._decided = 0
        self._settled: set[int] = set()
        self._failures: list[tuple[int, int, str]] = []
        self._moved = False
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def take(self) -> int:
        with self._lock:
            self._next += 1
            return self._next - 1

    def settle(self, tickets: Iterable[int], error: str = "") -> None:
        """They are durable, or failed."""
        with self._lock:
            for ticket in tickets:
                self._settled.add(ticket)
                if error:
                    self._failures.append((ticket, ticket, error))
            while self._decided in self._settled:
                self._settled.remove(self._decided)
                self._decided += 1
                self._moved = True

    def tell(self) -> None:
        """Wake whoever drains, where there is something new: once a round, not once a ticket."""
        with self._lock:
            moved, self._moved = self._moved, False
        if moved:
            os.eventfd_write(self.event, 1)

    def drain(self) -> tuple[int, list[tuple[int, int, str]]]:
        try:
            os.eventfd_read(self.event)
        except BlockingIOError:
            pass
        with self._lock:
            # Side by side, failures of one cause are one run.
            runs: list[tuple[int, int, str]] = []
            for first, last, error in sorted(self._failures):
                if runs and runs[-1][1] + 1 == first and runs[-1][2] == error:
                    runs[-1] = (runs[-1][0], last, error)
                else:
                    runs.append((first, last, error))
            told: list[tuple[int, int, str]] = []
            for run in runs:
                if run[0] >= self._decided or len(told) == RUNS_MAX:
                    break
                told.append(run)
            # What is not passed yet, or more than can be told now, waits; so does what is behind.
            rest = runs[len(told) :]
            decided = min(self._decided, rest[0][0]) if rest else self._decided
            last_run = told[-1] if told else None
            if last_run is not None and last_run[1] >= decided:
                told[-1] = (last_run[0], decided - 1, last_run[2])
                rest.insert(0, (decided, last_run[1], last_run[2]))
            self._failures = rest
            if decided < self._decided:
                os.eventfd_write(self.event, 1)
            return decided, told

    def close(self) -> None:
        os.close(self.event)
