"""What is known of one query: what it asked and what it has taken so far.

Invariant: written by the query's own thread alone, at each step of its work, so that a query that
is refused or cancelled half way still says what it took until then.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Spent:
    """Sums over the parts of the expression; `series_answered` is of its answer. `cost`: the
    estimate that was judged before anything was read, in points and cells. `bytes_read` and
    `files_read`: of warm and cold files; `tiers`: who answered, in order."""

    series_selected: int = 0
    points_estimated: int = 0
    points_scanned: int = 0
    cost: int = 0
    series_answered: int = 0
    bytes_read: int = 0
    files_read: int = 0
    tiers: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Asked:
    """One request. `key` is the name of the key that was shown; the rest is known once it is read;
    `text` and the times only of a query."""

    endpoint: str = ""
    tenant: str = "default"
    key: str = ""
    text: str = ""
    start_ms: int = 0
    end_ms: int = 0
    step_ms: int = 0
    spent: Spent = field(default_factory=Spent)
