"""Room on the disk and in memory: looked at in time to refuse what would not fit.

Invariant: whatever seals and merges do, the disk is looked at again before a sender, however fast,
can have filled what was left below the next level.
"""

import threading
from collections.abc import Callable

from sluiceway.kernels import Disk
from sluiceway.tiers.hot import Admission, HotConfig, admission, room_bytes

LOOK_S_MIN, LOOK_S_MAX = 0.05, 1.0
FILL_BYTES_PER_S = 512 << 20
"""No disk that we know of is filled faster."""


class RoomWatch:
    """Tells `admit` what may come in. `run` is a thread's; `look` may be called by hand."""

    def __init__(
        self,
        disk: Disk,
        config: HotConfig,
        part_count: Callable[[], int],
        admit: Callable[[Admission], None],
    ) -> None:
        self._disk = disk
        self._config = config
        self._part_count = part_count
        self._admit = admit
        self._now = Admission("accept")

    def look(self) -> float:
        """Admit or refuse by what there is now; seconds until it must be looked at again.

        Raises: OSError.
        """
        used = self._disk.used_bytes()
        wanted = admission(self._config, used, resident_bytes(), self._part_count())
        if wanted != self._now:
            self._admit(wanted)
            self._now = wanted
        room = room_bytes(self._config, used)
        return max(LOOK_S_MIN, min(LOOK_S_MAX, room / FILL_BYTES_PER_S))

    def run(self, stopping: threading.Event, failed: Callable[[Exception], None]) -> None:
        """Look until told to stop; a look that fails is tried again."""
        pause_s = 0.0
        while not stopping.wait(pause_s):
            try:
                pause_s = self.look()
            except OSError as error:
                failed(error)
                pause_s = LOOK_S_MAX


def resident_bytes() -> int:
    """Anonymous memory of this process that is resident."""
    try:
        with open("/proc/self/status") as status:
            kibibytes = next(line.split()[1] for line in status if line.startswith("RssAnon:"))
    except (OSError, StopIteration):
        return 0
    return int(kibibytes) << 10
