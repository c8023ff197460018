"""A pulse between a parent and its child: one byte a second over a pipe, from the child's loop.

Invariant: a parent that itself stood still takes nobody for silent: what counts is how often it
looked and had heard nothing since the look before.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable

READ_BYTES = 4_096
Beat = Callable[[], None]


def silent() -> None:
    """The pulse of a process without a parent that listens."""


def pulse_of(descriptor: int) -> Beat:
    """What a child calls; never blocks, and a parent that is gone is not its concern."""
    os.set_blocking(descriptor, False)

    def beat() -> None:
        with contextlib.suppress(OSError):
            os.write(descriptor, b".")

    return beat


class Pulse:
    """The parent's end. Its loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reads, self.writes = os.pipe()
        """`writes`: for the child to inherit; `begun` closes it here."""
        os.set_blocking(self._reads, False)
        self._loop.add_reader(self._reads, self._hear)
        self._heard = self._begun = False
        self._looks = 0

    def begun(self) -> None:
        """The child has its end."""
        os.close(self.writes)

    def _hear(self) -> None:
        try:
            self._heard = bool(os.read(self._reads, READ_BYTES))
        except BlockingIOError:
            return
        if self._heard:
            self._begun = True
        else:
            self._loop.remove_reader(self._reads)  # the child has ended

    def look(self) -> int:
        """Looks, this one among them, without a beat; 0 until the first: a start may take long."""
        self._looks = 0 if self._heard or not self._begun else self._looks + 1
        self._heard = False
        return self._looks

    def close(self) -> None:
        self._loop.remove_reader(self._reads)
        os.close(self._reads)
