"""A database brought to the schema of this build.

Invariant: within the caller's transaction: all of it or nothing. A newer schema is refused.
"""

from sqlalchemy import Connection, inspect, text

from sluiceway.errors import BackendUnavailable
from sluiceway.tenants.sql.tables import SCHEMA


def migrate(connection: Connection) -> None:
    """Raises: BackendUnavailable (its schema is newer), what the database raises."""
    found = schema_of(connection)
    if found == SCHEMA:
        return
    if found is not None and found > SCHEMA:
        words = f"tenants' database has schema {found}, newer than {SCHEMA}"
        raise BackendUnavailable(words)
    # Imported here: only a new or old database needs it, and it takes a while.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "sluiceway.tenants.sql:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def schema_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
