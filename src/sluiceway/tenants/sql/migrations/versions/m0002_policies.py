"""Schema 2: versions of the policy.

Invariant: what a migration writes is spelt out here: it stays as it was when the code moves on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Schema 1 gains a table that is empty."""
    number, text, document = sa.BigInteger(), sa.Text(), sa.JSON(none_as_null=True)
    op.create_table(
        "policies",
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("stage", text, nullable=False),
        sa.Column("author", text, nullable=False),
        sa.Column("created_ms", number, nullable=False),
        sa.Column("document", text, nullable=False),
        sa.Column("policy", document, nullable=False),
        sa.Column("rolled_back_to", sa.Integer()),
        sa.Column("revision", number, nullable=False),
    )
