"""`sluiceway serve` with a processor that is held back: how fast it may apply stands in a file.

    python -m tests.faults.paced PACE_FILE DATA_DIR HOST:PORT

The file holds records per second: 0 stops the processor, `inf` lets it go as fast as it can. All
else is the shipped server; settings come from the environment.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

LOOK_S = 0.02


class FilePace:
    """A worker's pace: on average the records per second that the file names, from when it was
    changed on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rate = math.inf
        self._since = (0.0, 0)

    def __call__(self, next_sequence: int) -> None:
        while not self._may_go(next_sequence):
            time.sleep(LOOK_S)

    def _may_go(self, next_sequence: int) -> bool:
        rate, now_s = float(self._path.read_text() or "inf"), time.monotonic()
        if rate != self._rate:
            self._rate, self._since = rate, (now_s, next_sequence)
        since_s, first_sequence = self._since
        allowed = self._rate * (now_s - since_s) if self._rate < math.inf else math.inf
        return self._rate > 0 and next_sequence <= first_sequence + allowed


def main() -> None:
    from sluiceway.serve.quick_start import quick_start

    quick_start()
    from sluiceway import config
    from sluiceway.wiring import serve

    pace_file, data_dir, http = sys.argv[1:]
    serve(config.load(None, data_dir=Path(data_dir), http=http), FilePace(Path(pace_file)))


def set_pace(path: Path, records_per_s: float) -> None:
    """Whole or not at all: the server reads it all the time."""
    fresh = path.with_suffix(".new")
    fresh.write_text(str(records_per_s))
    fresh.replace(path)


if __name__ == "__main__":
    main()
