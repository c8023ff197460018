"""What a shard counts, by the names of /metrics and `sluiceway status`."""

from collections.abc import Mapping
from typing import Any

import msgspec

from sluiceway.ledger.statement import Statement


def figures(shard: Mapping[str, Any], statement: Statement) -> dict[str, Any]:
    """Of the kernel's own figures and the ledger; the journal is absent until it is opened."""
    journal = shard.get("journal") or {}
    return {
        "journal_bytes": journal.get("bytes", 0),
        "journal_segments": journal.get("segments", 0),
        "journal_sync_errors_total": journal.get("failed_groups", 0),
        "journal_sync_seconds": journal.get("fsync_seconds_last", 0.0),
        "journal_records_total": journal.get("records", 0),
        "journal_groups_total": journal.get("groups", 0),
        "journal_quarantined_records_total": journal.get("quarantined_records", 0),
        "journal_undecided_records_total": journal.get("undecided_records", 0),
        "journal_lost_records_total": statement.lost_records,
        "journal_lag_records": shard["lag_records"],
        "corrupt_pages_total": shard["corrupt_pages"],
        "series": shard["series"],
        "buffer_points": shard["points_buffered"] + shard["frozen_points"],
        "parts": shard["blocks"],
        "points": statement.outcomes(),
        "points_by_tenant": {
            name: {**outcomes.by_outcome(), "received": outcomes.received}
            for name, outcomes in statement.tenants.items()
        },
        "series_created_by_tenant": {
            name: outcomes.series_created for name, outcomes in statement.tenants.items()
        },
        "movements": msgspec.structs.asdict(statement.movements),
        "ledger_gaps": {"flow": statement.flow_gap(), "stock": statement.stock_gap()},
        "shard": shard,
    }
