"""Alembic runs this: migrate the connection that it was handed.

Invariant: the caller owns the transaction, so that a migration is whole or not at all.
"""

from alembic import context

from sluiceway.tenants.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
