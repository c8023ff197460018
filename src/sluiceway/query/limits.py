"""The read side's limits, each with its default.

Invariant: a query that passes one is answered 422 or 503 by name; it never takes the process down.
"""

from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024

QueriesRun = Literal["idle", "shared"]
"""On what the cores have to spare: idle time alone, or with a lower weight than the acks."""


@dataclass(frozen=True)
class QueryConfig:
    """Counts, bytes and seconds; `_ms` where PromQL counts in milliseconds."""

    concurrency_max: int = 8
    """Queries evaluated at once; further ones wait."""
    tenant_concurrency_max: int = 6
    """Of those, one tenant's: the others' small queries find a turn beside its large ones."""
    waiting_max: int = 64
    """Queries that wait for a turn; the next one is 503, or one of the tenant that has most."""
    tenant_waiting_max: int = 32
    """Of those, one tenant's."""
    timeout_s_max: float = 120.0
    lookback_ms: int = 300_000
    steps_max: int = 11_000
    series_max: int = 1_000_000
    points_max: int = 500_000_000
    cost_max: int = 5_000_000_000
    """Of a query's estimate before any point is read: points, and cells (series by steps)."""
    result_bytes_max: int = 256 * MIB
    text_bytes_max: int = 64 * 1024
    label_names_limit_max: int = 1_000_000
    """Names, values or series in one metadata answer."""
    log_bytes_max: int = 64 * MIB
    """Of the query log on disk (docs/formats/query_log.md); 0 writes none."""
    log_tenant_bytes_max: int = 16 * MIB
    """Of those, one tenant's; never more than a quarter of all."""
    log_days_max: int = 30
    log_waiting_max: int = 2_048
    """Queries between their answer and their line; further ones are not logged, and counted."""
    log_tenant_lines_per_minute_max: int = 1_200
    log_fold_s: float = 60.0
    """Repeats of a query in so long become one line."""
