"""An act under way: its transaction, who acts, when, and the audit rows that go with it.

Invariant: a row of the audit log is in the transaction that makes the change it tells of.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, insert

from sluiceway.tenants.sql import tables


@dataclass(frozen=True)
class Acting:
    """One transaction; `revision` is what it makes."""

    connection: Connection
    actor: str
    now_ms: int
    revision: int

    def note(self, act: str, subject: str, before: Any, after: Any) -> None:
        """Write the audit row. Nothing in `before` or `after` may be secret."""
        row = {
            "at_ms": self.now_ms,
            "revision": self.revision,
            "actor": self.actor,
            "act": act,
            "subject": subject,
            "before": msgspec.to_builtins(before),
            "after": msgspec.to_builtins(after),
        }
        self.connection.execute(insert(tables.audit).values(row))
