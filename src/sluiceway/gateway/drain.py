"""How fast the gateway gets rid of what it holds: what Retry-After is computed from.

Invariant: the rate is one of a busy gateway. A window in which nobody had to wait shows what was
offered, not what could be done, and can only raise it; one that lasted too long (nothing came, or
the process was stopped) shows nothing.
"""

WINDOW_S = 0.25
WINDOW_S_MAX = 2.0
BUSY_WEIGHT = 0.3
"""Of the newest busy window."""
UNMEASURED_BYTES_PER_S = 8 * 1024 * 1024
"""Before anything was measured: some 1,000 small requests a second."""


class DrainRate:
    """Bytes acked per second, each request with what it costs besides its body."""

    def __init__(self, now_s: float) -> None:
        self.acked_bytes = 0
        """Of this window; the caller adds to it, and calls `measure` once `due_s` is reached."""
        self.due_s = now_s + WINDOW_S
        self._busy = False
        self._bytes_per_s = 0.0

    @property
    def bytes_per_s(self) -> float:
        return self._bytes_per_s or UNMEASURED_BYTES_PER_S

    def note_busy(self) -> None:
        """Somebody had to wait, or was refused."""
        self._busy = True

    def measure(self, now_s: float) -> None:
        passed_s = now_s - self.due_s + WINDOW_S
        if passed_s <= WINDOW_S_MAX:
            found = self.acked_bytes / passed_s
            if self._busy and self._bytes_per_s > 0:
                self._bytes_per_s += BUSY_WEIGHT * (found - self._bytes_per_s)
            else:
                self._bytes_per_s = max(self._bytes_per_s, found)
        self.due_s, self.acked_bytes, self._busy = now_s + WINDOW_S, 0, False
