"""What grew lately: counters as they stood over the last minutes, for judging what is wrong now.

Invariant: at most WINDOW_S / SAMPLE_S + 1 samples are held; the clock is the monotonic one.
"""

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from sluiceway.clock import Clock

WINDOW_S = 300.0
SAMPLE_S = 15.0
K = TypeVar("K", bound=Hashable)


class Recent(Generic[K]):
    """Samples of counters, a SAMPLE_S apart. One thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, dict[K, float]]] = deque()

    def note(self, counters: Mapping[K, float]) -> dict[K, float]:
        """Take the counters in, and say what each has grown by in the window. One seen for the
        first time has not grown: what earlier lives of the process counted is no news."""
        now_s = self._clock.monotonic_s()
        if not self._samples or now_s - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((now_s, dict(counters)))
        for name, value in counters.items():
            self._samples[-1][1].setdefault(name, value)
        while len(self._samples) > 1 and now_s - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()
        grown = {}
        for name, value in counters.items():
            held = (sample[name] for _, sample in self._samples if name in sample)
            grown[name] = max(0.0, value - next(held, value))
        return grown

    def note_since_zero(self, counters: Mapping[K, float]) -> dict[K, float]:
        """As `note`, for counters that begin at 0 while we look on: after the first call, one seen
        for the first time has grown by all of its value."""
        if self._samples:
            newest = self._samples[-1][1]
            for name in counters:
                newest.setdefault(name, 0.0)
        return self.note(counters)
