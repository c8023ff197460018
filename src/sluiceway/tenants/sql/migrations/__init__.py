"""Alembic's migrations of the tenants' database, oldest first in versions/."""
