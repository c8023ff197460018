"""The ledger as the shard states it, and the two equations that must hold.

Flow, per tenant: received = stored + folded + dead_lettered + discarded + rejected +
duplicate. Stock: rows on disk + rows in the buffer = stored + emitted + derived - superseded -
expired - deleted. Invariant: a statement describes one moment, at exactly one journal sequence.
"""

from collections import Counter

import msgspec


class Outcomes(msgspec.Struct, frozen=True):
    """What became of a tenant's points."""

    received: int
    stored: int
    folded: int
    dead_lettered: int
    discarded: int
    duplicate: int
    rejected: dict[str, int]
    records: int
    series_created: int
    emitted: int
    """Points that folding made: none of the received ones."""

    def flow_gap(self) -> int:
        """Points without an outcome; 0 unless something is wrong."""
        return self.received - sum(self.by_outcome().values())

    def by_outcome(self) -> dict[str, int]:
        return {
            "stored": self.stored,
            "folded": self.folded,
            "dead_lettered": self.dead_lettered,
            "discarded": self.discarded,
            "duplicate": self.duplicate,
            "rejected": sum(self.rejected.values()),
        }


class Movements(msgspec.Struct, frozen=True):
    """Points that left or entered the stock after they were stored."""

    superseded: int
    expired: int
    deleted: int
    derived: int
    replayed: int


class Stock(msgspec.Struct, frozen=True):
    """Rows held now. `block_rows` is counted row by row where `raw_scan`, else as declared."""

    block_rows: int
    buffer_rows: int
    expected_rows: int
    raw_scan: bool


class Committed(msgspec.Struct, frozen=True):
    """The flow as of the last manifest: before record `next_sequence`."""

    next_sequence: int
    tenants: dict[str, Outcomes]


class Statement(msgspec.Struct, frozen=True):
    """All of it, before record `next_sequence`."""

    next_sequence: int
    tenants: dict[str, Outcomes]
    movements: Movements
    stock: Stock
    balanced: bool
    lost_records: int = 0
    """Acked records that damage in the journal took. Where a record's header survives its points
    are `rejected: journal_damage`; of the others nothing is known."""
    committed: Committed = Committed(0, {})
    deleted: dict[str, int] = {}
    """Stored points that orders to delete took out of the stock, by tenant."""

    def stock_gap(self) -> int:
        """Rows too many (or, negative, missing); 0 unless something is wrong."""
        return self.stock.block_rows + self.stock.buffer_rows - self.stock.expected_rows

    def flow_gap(self) -> int:
        """Points without an outcome, of all tenants; 0 unless something is wrong."""
        return sum(abs(outcomes.flow_gap()) for outcomes in self.tenants.values())

    def outcomes(self) -> dict[str, int]:
        """Points by outcome over all tenants, `received` among them."""
        total: Counter[str] = Counter()
        for outcomes in self.tenants.values():
            total.update(outcomes.by_outcome())
            total["received"] += outcomes.received
        return dict(total)
