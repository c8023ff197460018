"""`sluiceway serve` that watches its own calls: python -m fakes.watched_server REPORT serve ...

From SIGUSR1 on, the time that each thread spends between two events of Python (a call, a return,
one of either into C) is taken from the processor's clock of that thread, so that a busy machine
alone makes no stretch long. What a kernel does without the GIL is taken off, but on the event
loop's thread, which stands meanwhile. REPORT gets the longest stretches of each place.
"""

import gc
import json
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

from sluiceway.cli import main as run
from sluiceway.kernels import detached_ns, time_detached

KEPT = 5


class Watch:
    """What was seen. Each thread appends to lists of its own."""

    def __init__(self) -> None:
        self.recording = False
        self._here = threading.local()
        self._all: list[dict[str, list[int]]] = []
        self.collections: dict[str, list[int]] = defaultdict(list)
        self._collection_began_ns = 0

    def install(self) -> None:
        """Watch this thread, and those that are started from now on."""
        time_detached()
        threading.setprofile(self.profile)
        sys.setprofile(self.profile)
        gc.callbacks.append(self.collected)

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        """Ends one stretch and begins the next; its own time is in none."""
        if not self.recording:
            return
        now_ns, free_ns = time.thread_time_ns(), detached_ns()
        here = self._here
        seen: dict[str, list[int]] | None = getattr(here, "seen", None)
        if seen is None:
            seen = here.seen = defaultdict(list)
            here.main = threading.current_thread() is threading.main_thread()
            self._all.append(seen)
        else:
            took_ns = now_ns - here.began_ns
            if not here.main:
                took_ns -= free_ns - here.free_ns
            if event in ("c_return", "c_exception"):
                place = f"{argument.__module__ or ''} {argument.__qualname__}"
            else:
                place = f"{frame.f_code.co_filename[-40:]} {frame.f_code.co_qualname} {event}"
            longest = seen[place]
            longest.append(took_ns)
            if len(longest) > 4 * KEPT:
                longest.sort(reverse=True)
                del longest[KEPT:]
        here.free_ns = free_ns
        here.began_ns = time.thread_time_ns()

    def collected(self, phase: str, found: dict[str, int]) -> None:
        if phase == "start":
            self._collection_began_ns = time.thread_time_ns()
        elif self.recording:
            took_ns = time.thread_time_ns() - self._collection_began_ns
            self.collections[f"collection of generation {found['generation']}"].append(took_ns)

    def report(self) -> dict[str, list[int]]:
        longest: dict[str, list[int]] = defaultdict(list)
        for seen in [*self._all, self.collections]:
            for place, took_ns in seen.items():
                longest[place] = sorted([*longest[place], *took_ns], reverse=True)[:KEPT]
        return longest


def main() -> None:
    report, arguments = Path(sys.argv[1]), sys.argv[2:]
    watch = Watch()

    def begin(*_: object) -> None:
        watch.recording = True

    signal.signal(signal.SIGUSR1, begin)
    watch.install()
    sys.argv = ["sluiceway", *arguments]
    try:
        run()
    finally:
        watch.recording = False
        report.write_text(json.dumps(watch.report()))


if __name__ == "__main__":
    main()
