"""Tenants in a temporary directory: the store, its publisher, the directory that follows."""

from dataclasses import dataclass
from pathlib import Path

from sluiceway.clock import Clock, ManualClock
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.embedded import EmbeddedStore
from sluiceway.tenants.publisher import Publisher

NOW_MS = 1_800_000_000_000


@dataclass
class Tenancy:
    """All of it over one directory, by a clock that stands still."""

    place: Path
    clock: Clock

    def directory(self) -> SnapshotDirectory:
        return SnapshotDirectory(self.snapshot_file, self.database, self.clock)

    def publisher(self, directory: SnapshotDirectory) -> Publisher:
        def open_store() -> EmbeddedStore:
            return EmbeddedStore(self.database, self.clock)

        return Publisher(open_store, self.database, self.snapshot_file, directory)

    @property
    def database(self) -> Path:
        return self.place / "tenants.db"

    @property
    def snapshot_file(self) -> Path:
        return self.place / "tenants.snapshot"


def tenancy(place: Path) -> tuple[Tenancy, ManualClock]:
    clock = ManualClock(NOW_MS)
    return Tenancy(place, clock), clock
