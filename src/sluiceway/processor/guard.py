"""What runs the steps of the shard's threads, and remembers how they failed.

Invariant: a step that fails is counted, told and tried again later; it never ends its thread.
"""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from sluiceway.errors import Cancelled, SluicewayError


class Guard:
    """One for all threads of a shard."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self.errors = 0
        self.failure: str | None = None
        """What failed last; None once a step did something after it."""

    def run(self, step: Callable[[], bool]) -> bool:
        """Did the step do something? A failed one did not."""
        try:
            done = step()
        except Cancelled:
            return False
        except (SluicewayError, OSError, MemoryError) as error:
            self.failed(error, getattr(step, "__name__", "step"))
            return False
        if done:
            self.failure = None
        return done

    def failed(self, error: Exception, step: str = "room") -> None:
        self.errors += 1
        self.failure = f"{type(error).__name__}: {error}"
        self._log.error("step_failed", step=step, error=str(error))
