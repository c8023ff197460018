"""Policy versions: what a record is judged by, named by its header and kept while one may name it.

Invariant: a version is never changed and never given twice; versions grow with time, those of
compiled policies too.
"""

from dataclasses import dataclass

import msgspec

from sluiceway.tiers.manifest import Policy

NEW_SERIES = ("accept", "refuse_disk", "refuse_memory")
BEHIND_MAX = 16 * len(NEW_SERIES)
"""Versions kept behind the one that sealed records named last: records may come a little late."""
POLICIES_MAX = 512 * len(NEW_SERIES)
"""Versions in one manifest; beyond, changes wait for a seal."""


@dataclass(frozen=True, slots=True)
class Policies:
    """All versions, and by name those that new records are received under."""

    table: tuple[Policy, ...]

    @property
    def series_max(self) -> int:
        return self.table[-1].series_max

    @property
    def compiled(self) -> int:
        """The compiled policy's version; 0 is none."""
        return self.table[-1].table

    def version(self, new_series: str) -> int:
        current = self.table[-len(NEW_SERIES) :]
        return next(policy.version for policy in current if policy.new_series == new_series)


def policies_for(
    table: tuple[Policy, ...], series_max: int, compiled: int, sealed: int
) -> Policies:
    """The table ending in versions for `series_max` and the compiled policy: as it is where it
    does, else with new ones. Forgotten are those far behind `sealed`, the highest version that a
    sealed record named."""
    current = table[-len(NEW_SERIES) :]
    wanted = [(name, series_max, compiled) for name in NEW_SERIES]
    if [(policy.new_series, policy.series_max, policy.table) for policy in current] != wanted:
        first = table[-1].version + 1 if table else 1
        added = (
            Policy(first + at, series_max, name, compiled) for at, name in enumerate(NEW_SERIES)
        )
        kept = [policy for policy in table if policy.version > sealed - BEHIND_MAX]
        table = (*kept, *added)[-POLICIES_MAX:]
    return Policies(table)


def encode_policies(policies: Policies) -> str:
    return msgspec.json.encode(policies.table).decode()
