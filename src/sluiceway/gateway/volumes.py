"""Who is past the volume that its plan includes: a thread that looks, and what the door asks.

Invariant: the door reads one dict that is swapped in whole; it never waits for a look. What cannot
be looked at leaves what was known.
"""

import threading
from collections.abc import Callable, Mapping

import structlog

from sluiceway.clock import Clock
from sluiceway.cost.files import CostFiles
from sluiceway.cost.volumes import past, volumes
from sluiceway.errors import SluicewayError
from sluiceway.tenants.model import Snapshot

LOOK_S = 2.0
log = structlog.get_logger("volumes")


class VolumeWatch:
    """`refusal` on any thread; looks on one of its own."""

    def __init__(
        self,
        files: CostFiles,
        tenants: Callable[[], Snapshot],
        received: Callable[[], Mapping[str, int]],
        clock: Clock,
    ) -> None:
        """`received`: points by tenant, as the ledger counts them."""
        self._files = files
        self._tenants = tenants
        self._received = received
        self._clock = clock
        self._past: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluiceway-volumes", daemon=True)

    def refusal(self, tenant: str) -> str:
        """Why the tenant's writes are refused; empty where they are not."""
        return self._past.get(tenant, "")

    def look(self) -> None:
        """Raises: SluicewayError, OSError."""
        told = volumes(self._files, self._clock.now_ms())
        found = past(told, self._tenants(), self._received)
        for tenant in found.keys() - self._past.keys():
            log.warning("volume_past", tenant=tenant, why=found[tenant])
        self._past = found

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except (SluicewayError, OSError) as error:
                log.error("volumes_not_read", error=str(error))
            self._stopping.wait(LOOK_S)
