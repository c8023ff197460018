"""Opening a data directory: last manifest, state files, blocks; the journal's replay follows.

Invariant: nothing is trusted that the manifest does not name, and what it names is checked before
it is used; files of commits that never happened are removed (torn_commit.py tells which).
"""

import zlib

from sluiceway.errors import Corruption
from sluiceway.kernels import Disk, Shard
from sluiceway.processor.checkpoint import encode_publication
from sluiceway.processor.policies import Policies, policies_for
from sluiceway.processor.torn_commit import FOLDERS, mend_newest, strays
from sluiceway.tiers.manifest import Change, ManifestStore, Version


def open_tier(
    disk: Disk, manifests: ManifestStore, directory: str, journal: str, series_max: int
) -> tuple[Version, Policies]:
    """Take the directory over: a new fence and the policies, committed. Raises: Corruption."""
    for folder in ("manifest", *FOLDERS):
        disk.create_directory(f"{directory}/{folder}")
    manifests.load()
    mend_newest(disk, manifests, directory, journal)
    before = manifests.version
    table = before.policies[-1].table if before.policies else 0
    sealed = before.policy_version_sealed()
    policies = policies_for(before.policies, series_max, table, sealed)
    version = manifests.commit(Change("open", fence=before.fence + 1, policies=policies.table))
    remove_strays(disk, version, directory)
    return version, policies


def remove_strays(disk: Disk, version: Version, directory: str) -> None:
    """Remove files of seals, merges and policies that never committed."""
    for path in strays(disk, version, directory):
        disk.remove(path)


def read_tables(disk: Disk, version: Version) -> dict[int, bytes]:
    """The compiled policies that the manifest names. Raises: Corruption, OSError."""
    tables = {}
    for entry in version.tables:
        data = disk.read(entry.path)
        if len(data) != entry.bytes or zlib.crc32(data) != entry.crc32:
            raise Corruption(f"{entry.path}: size or checksum")
        tables[entry.version] = data
    return tables


def load_tier(shard: Shard, version: Version) -> None:
    """Load what the manifest names into the shard. Blocks while a large registry is read.

    Raises: Corruption, BackendUnavailable.
    """
    for state in version.states:
        shard.load_state(state.path, state.bytes, state.crc32)
    change = Change("open", blocks=version.blocks)  # encoded with the version's orders
    shard.publish(encode_publication(version, change, sealed=False))
    shard.loaded()
