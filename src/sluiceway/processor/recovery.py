"""Opening a data directory: last manifest, state files, blocks; the journal's replay follows.

Invariant: nothing is trusted that the manifest does not name, and what it names is checked before
it is used; files of commits that never happened are removed (torn_commit.py tells which).
"""

from dataclasses import dataclass

import msgspec

from sluiceway.kernels import Disk, Shard
from sluiceway.processor.checkpoint import encode_publication
from sluiceway.processor.torn_commit import FOLDERS, mend_newest, strays
from sluiceway.tiers.manifest import Change, ManifestStore, Policy, Version

NEW_SERIES = ("accept", "refuse_disk", "refuse_memory")
POLICIES_KEPT = 16 * len(NEW_SERIES)
"""Versions that records in the journal may still name: sixteen changes of the configuration."""


@dataclass(frozen=True, slots=True)
class Policies:
    """All versions, and by name those that new records are received under."""

    table: tuple[Policy, ...]

    @property
    def series_max(self) -> int:
        return self.table[-1].series_max

    def version(self, new_series: str) -> int:
        current = self.table[-len(NEW_SERIES) :]
        return next(policy.version for policy in current if policy.new_series == new_series)


def policies_for(table: tuple[Policy, ...], series_max: int) -> Policies:
    """The table ending in versions for `series_max`: as it is where it does, else with new ones."""
    current = table[-len(NEW_SERIES) :]
    wanted = [(name, series_max) for name in NEW_SERIES]
    if [(policy.new_series, policy.series_max) for policy in current] != wanted:
        first = table[-1].version + 1 if table else 1
        added = (Policy(first + at, series_max, name) for at, name in enumerate(NEW_SERIES))
        table = (*table, *added)[-POLICIES_KEPT:]
    return Policies(table)


def open_tier(
    disk: Disk, manifests: ManifestStore, directory: str, journal: str, series_max: int
) -> tuple[Version, Policies]:
    """Take the directory over: a new fence and the policies, committed. Raises: Corruption."""
    for folder in ("manifest", *FOLDERS):
        disk.create_directory(f"{directory}/{folder}")
    manifests.load()
    mend_newest(disk, manifests, directory, journal)
    before = manifests.version
    policies = policies_for(before.policies, series_max)
    version = manifests.commit(Change("open", fence=before.fence + 1, policies=policies.table))
    remove_strays(disk, version, directory)
    return version, policies


def remove_strays(disk: Disk, version: Version, directory: str) -> None:
    """Remove blocks and state files of seals and merges that never committed."""
    for path in strays(disk, version, directory):
        disk.remove(path)


def load_tier(shard: Shard, version: Version) -> None:
    """Load what the manifest names into the shard. Blocks while a large registry is read.

    Raises: Corruption, BackendUnavailable.
    """
    for state in version.states:
        shard.load_state(state.path, state.bytes, state.crc32)
    change = Change("open", blocks=version.blocks)
    shard.publish(encode_publication(version, change, sealed=False))
    shard.loaded()


def encode_policies(policies: Policies) -> str:
    return msgspec.json.encode(policies.table).decode()
