"""Schema 1: tenants, plans, keys, overrides, audit; the built-in plans and `default`.

Invariant: what a migration writes is spelt out here: it stays as it was when the code moves on.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

DAY_MS = 86_400_000


def upgrade() -> None:
    """An empty database becomes schema 1 at revision 0."""
    number, text, document = sa.BigInteger(), sa.Text(), sa.JSON(none_as_null=True)
    stamps = ("created_ms", "changed_ms", "revision")
    counter = op.create_table(
        "revision",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("number", number, nullable=False),
    )
    plans = op.create_table(
        "plans",
        sa.Column("name", text, primary_key=True),
        sa.Column("document", document, nullable=False),
        *(sa.Column(name, number, nullable=False) for name in stamps),
    )
    tenants = op.create_table(
        "tenants",
        sa.Column("name", text, primary_key=True),
        sa.Column("plan", text, sa.ForeignKey("plans.name"), nullable=False),
        sa.Column("limits", document, nullable=False),
        sa.Column("status", text, nullable=False),
        *(sa.Column(name, number, nullable=False) for name in stamps),
    )
    op.create_table(
        "keys",
        sa.Column("id", text, primary_key=True),
        sa.Column("tenant", text, sa.ForeignKey("tenants.name"), nullable=False, index=True),
        sa.Column("name", text, nullable=False),
        sa.Column("scopes", document, nullable=False),
        sa.Column("may_read", document, nullable=False),
        sa.Column("sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("created_ms", number, nullable=False),
        sa.Column("expires_ms", number),
    )
    op.create_table(
        "overrides",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("tenant", text, sa.ForeignKey("tenants.name"), nullable=False, index=True),
        sa.Column("document", document, nullable=False),
        sa.Column("reason", text, nullable=False),
        sa.Column("actor", text, nullable=False),
        sa.Column("created_ms", number, nullable=False),
        sa.Column("until_ms", number, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at_ms", number, nullable=False),
        sa.Column("revision", number, nullable=False),
        sa.Column("actor", text, nullable=False),
        sa.Column("act", text, nullable=False),
        sa.Column("subject", text, nullable=False, index=True),
        sa.Column("before", document),
        sa.Column("after", document),
        sqlite_autoincrement=True,
    )
    retention = {"raw_ms": 15 * DAY_MS, "minute_ms": 396 * DAY_MS, "hour_ms": 1_096 * DAY_MS}
    zero = dict.fromkeys(stamps, 0)
    op.bulk_insert(counter, [{"id": 1, "number": 0}])
    op.bulk_insert(
        plans,
        [
            {"name": "unlimited", "document": {}, **zero},
            {"name": "standard", "document": {"limits": {"retention": retention}}, **zero},
        ],
    )
    first = {"name": "default", "plan": "unlimited", "limits": {}, "status": "active", **zero}
    op.bulk_insert(tenants, [first])
