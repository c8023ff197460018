"""The tenants' store in one SQLite file of the data directory.

Invariant: the file is 0600, in WAL mode, and a commit is on the disk when it returns
(`synchronous = FULL`). Acts take the write lock when they begin, so none fails half way.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable
from sluiceway.tenants.model import Snapshot
from sluiceway.tenants.sql.migrating import migrate
from sluiceway.tenants.sql.store import READS, SqlStore

BUSY_S_MAX = 5.0
FILE_MODE = 0o600


class EmbeddedStore(SqlStore):
    """A TenantStore on SQLite."""

    def __init__(self, file: Path, clock: Clock) -> None:
        """Opens, makes and migrates. Blocks. Raises: BackendUnavailable, OSError."""
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": BUSY_S_MAX})
        event.listen(engine, "connect", _connected)
        event.listen(engine, "begin", _begin)
        super().__init__(engine, clock)
        with self.failures(), self.engine.begin() as connection:
            migrate(connection)
        # Never writes, so its data_version moves with everybody else's commits.
        self._watcher = sqlite3.connect(file, check_same_thread=False, timeout=BUSY_S_MAX)
        self._seen: int | None = None

    def changed(self) -> bool:
        return self._data_version() != self._seen

    def load(self) -> Snapshot:
        version = self._data_version()  # before the records: a later commit shows again
        snapshot = super().load()
        self._seen = version
        return snapshot

    def close(self) -> None:
        self._watcher.close()
        super().close()

    def _data_version(self) -> int:
        try:
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise BackendUnavailable(f"tenants' database: {error}") from None


def _connected(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # transactions are ours to begin
    for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get(READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
