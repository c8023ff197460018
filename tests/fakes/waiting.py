"""Waiting for what a real server does in its own time."""

import time
from collections.abc import Callable
from typing import Any

LOOK_S = 0.05


def within(condition: Callable[[], Any], why: str, seconds: float = 30.0) -> Any:
    """What the condition says once it is true. Fails, with `why`, when that takes longer."""
    deadline_s = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline_s, why
        time.sleep(LOOK_S)
    return found
