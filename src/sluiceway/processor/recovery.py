"""Opening a data directory: last manifest, state files, blocks; the journal's replay follows.

Invariant: nothing is trusted that the manifest does not name, and what it names is checked before
it is used; files of commits that never happened are removed.
"""

from dataclasses import dataclass

import msgspec

from sluiceway.kernels import Disk, Shard
from sluiceway.processor.checkpoint import publication
from sluiceway.tiers.manifest import Change, ManifestStore, Policy, Version

POLICIES_KEPT = 32
"""Versions that records in the journal may still name: sixteen changes of the configuration."""


@dataclass(frozen=True, slots=True)
class Policies:
    """The two versions new records are received under: series accepted, or refused for disk."""

    table: tuple[Policy, ...]
    accept: int
    refuse: int


def policies_for(table: tuple[Policy, ...], series_max: int) -> Policies:
    """The table with versions for `series_max`: the last two where they fit, else two new ones."""
    if len(table) < 2 or table[-1].series_max != series_max:
        version = table[-1].version + 1 if table else 1
        added = (
            Policy(version, series_max, "accept"),
            Policy(version + 1, series_max, "refuse_disk"),
        )
        table = (*table, *added)[-POLICIES_KEPT:]
    return Policies(table, table[-2].version, table[-1].version)


def open_tier(
    disk: Disk, manifests: ManifestStore, directory: str, series_max: int
) -> tuple[Version, Policies]:
    """Take the directory over: a new fence and the policies, committed. Raises: Corruption."""
    for folder in ("manifest", "blocks", "state"):
        disk.create_directory(f"{directory}/{folder}")
    before = manifests.load()
    policies = policies_for(before.policies, series_max)
    version = manifests.commit(Change("open", fence=before.fence + 1, policies=policies.table))
    remove_strays(disk, version, directory)
    return version, policies


def remove_strays(disk: Disk, version: Version, directory: str) -> None:
    """Remove blocks and state files of seals and merges that never committed."""
    named = version.files()
    for folder in ("blocks", "state"):
        for name in disk.list(f"{directory}/{folder}"):
            path = f"{directory}/{folder}/{name}"
            if path not in named:
                disk.remove(path)


def load_tier(shard: Shard, version: Version) -> None:
    """Load what the manifest names into the shard. Blocks while a large registry is read.

    Raises: Corruption, BackendUnavailable.
    """
    for state in version.states:
        shard.load_state(state.path, state.bytes, state.crc32)
    change = Change("open", blocks=version.blocks)
    shard.publish(publication(version, change, sealed=False))
    shard.loaded()


def encode_policies(policies: Policies) -> str:
    return msgspec.json.encode(policies.table).decode()
