"""The one place where tenants change: acts go to the store, then to the snapshot that all read.

Invariant: acts run one at a time, and one that has returned is in the snapshot, durably. The store
is opened by the first act, or in the background where its database is there already.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from sluiceway.errors import BackendUnavailable, SluicewayError
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.interface import TenantStore
from sluiceway.tenants.model import Snapshot
from sluiceway.tenants.snapshot import publish

FIRST_LOOK_S = 2.0
"""After the start: opening the store takes a while, and the first queries come first."""
LOOK_S = 1.0
log = structlog.get_logger()


class Publisher:
    """Owns the store. Every method but `start` blocks."""

    def __init__(
        self,
        open_store: Callable[[], TenantStore],
        database: Path | None,
        file: Path,
        directory: SnapshotDirectory,
    ) -> None:
        """`database`: as the directory's; None: elsewhere, and always to be asked."""
        self._open_store = open_store
        self._database = database
        self._file = file
        self._directory = directory
        self._lock = threading.Lock()
        self._store: TenantStore | None = None
        self._stopping = threading.Event()
        self._unpublished = False
        self._failing = False

    def current(self) -> Snapshot:
        """The records as they are now. Raises: BackendUnavailable."""
        with self._lock:
            if self._store is None and self._there():
                self._opened()
            return self._directory.snapshot()

    @contextmanager
    def acting(self) -> Iterator[tuple[TenantStore, Snapshot]]:
        """The store and the records before the act; published when the block ends.

        Raises: BackendUnavailable (also where the act is done and not yet published: the next
        look publishes it).
        """
        with self._lock:
            store = self._opened()
            yield store, self._directory.snapshot()
            self._publish(store)

    @contextmanager
    def looking(self) -> Iterator[TenantStore | None]:
        """The store, to read what is in no snapshot; None where nobody has acted yet."""
        with self._lock:
            yield self._opened() if self._there() else None

    def start(self) -> None:
        """Look after changes that others make, on a thread."""
        threading.Thread(target=self._watch, name="tenants-records", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _there(self) -> bool:
        return self._database is None or self._database.exists()

    @property
    def _name(self) -> str:
        return "the tenants' database" if self._database is None else self._database.name

    def _opened(self) -> TenantStore:
        if self._store is None:
            if not self._there() and self._directory.version > 0:
                raise BackendUnavailable(
                    f"{self._name} is gone: put it back, or remove {self._file.name} too"
                )
            try:
                store = self._open_store()
            except OSError as error:
                raise BackendUnavailable(f"{self._name}: {error}") from None
            if store.changed():
                self._publish(store)
            self._store = store
        return self._store

    def _publish(self, store: TenantStore) -> None:
        self._unpublished = True
        snapshot = store.load()
        held = self._directory.snapshot() if self._directory.version > 0 else None
        if snapshot == held and self._file.exists():
            self._unpublished = False
            return
        try:
            publish(self._file, snapshot)
        except OSError as error:
            raise BackendUnavailable(f"{self._file.name} cannot be written: {error}") from None
        self._unpublished = False
        self._directory.look()

    def _watch(self) -> None:
        wait_s = FIRST_LOOK_S
        while not self._stopping.wait(wait_s):
            wait_s = LOOK_S
            try:
                with self._lock:
                    if self._there():
                        store = self._opened()
                        if self._unpublished or store.changed() or not self._file.exists():
                            self._publish(store)
                self._failing = False
            except SluicewayError as error:
                if not self._failing:  # once, however long the database is away
                    log.error("tenants_not_published", error=str(error))
                self._failing = True
