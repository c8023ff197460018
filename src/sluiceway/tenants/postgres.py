"""The tenants' store in PostgreSQL, for processes on several machines.

Invariant: acts of all processes run one after the other (each begins by counting the one row of
`revision` up, which locks it), and what is read is of one moment (REPEATABLE READ).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, make_url, select, text
from sqlalchemy.engine import URL

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable
from sluiceway.tenants.model import Snapshot
from sluiceway.tenants.sql import tables
from sluiceway.tenants.sql.migrating import migrate
from sluiceway.tenants.sql.store import READS, SqlStore

CONNECT_S_MAX = 5.0
CONNECTIONS_MAX = 2
"""Of one process: an act and a look."""
MIGRATION_LOCK = 0x534C7561
"""Processes that start at once migrate one after the other."""


class PostgresStore(SqlStore):
    """A TenantStore on PostgreSQL."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Connects, makes and migrates. Blocks. Raises: BackendUnavailable."""
        engine = create_engine(
            with_driver(url),
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=CONNECT_S_MAX,
            pool_pre_ping=True,  # a server that was started anew costs no act
            connect_args={"timeout": CONNECT_S_MAX},
        )
        super().__init__(engine, clock)
        self._seen: int | None = None
        with self.failures(), self.engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            migrate(connection)

    def changed(self) -> bool:
        with self._reading() as connection:
            return self._number(connection) != self._seen

    def load(self) -> Snapshot:
        snapshot = super().load()
        self._seen = snapshot.revision
        return snapshot

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self.failures(), self.engine.connect() as connection:
            options = {"isolation_level": "REPEATABLE READ", READS: True}
            yield connection.execution_options(**options)

    def _number(self, connection: Connection) -> int:
        return int(connection.execute(select(tables.revision.c.number)).scalar_one())


def with_driver(url: str) -> URL:
    """The URL with the driver that we come with. Raises: BackendUnavailable (not PostgreSQL's)."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise BackendUnavailable("tenants_url: postgresql://USER:PASSWORD@HOST/DATABASE is taken")
    return parsed.set(drivername="postgresql+pg8000")
