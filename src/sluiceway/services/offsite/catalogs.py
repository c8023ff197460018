"""The tiers' catalog in a checkpoint: its manifests, from the last snapshot on, as they are here.

Invariant: what a chain comes to is exactly the catalog of its number.
"""

import zlib
from pathlib import Path

from sluiceway.errors import Corruption
from sluiceway.objects.interface import ObjectMissing, ObjectStore
from sluiceway.services.backup.inventory import Changed, Item, is_tier_snapshot
from sluiceway.services.offsite.document import Checkpoint, TermFile
from sluiceway.tiers import catalog_store
from sluiceway.tiers.catalog import Catalog
from sluiceway.tiers.paths import MANIFEST_DIRECTORY


def chain_items(data_dir: Path, newest: int, known: dict[int, Item]) -> dict[int, Item]:
    """The manifests from the last snapshot to `newest`, by number; 0: there is none. A manifest
    that is `known` is not read again: none ever changes. Raises: Changed, OSError."""
    found: dict[int, Item] = {}
    for number in range(newest, 0, -1):
        if number in known:
            earlier = {n: item for n, item in known.items() if n <= number}
            return {**earlier, **found}
        path = f"{MANIFEST_DIRECTORY}/{number:012d}.json"
        try:
            data = (data_dir / path).read_bytes()
        except FileNotFoundError:
            raise Changed(f"{path} went meanwhile") from None
        found[number] = Item(path, data_dir / path, len(data), zlib.crc32(data))
        if is_tier_snapshot(data):
            break
    return found


def catalog_of(store: ObjectStore, checkpoint: Checkpoint) -> Catalog | None:
    """What its manifests come to; None where it has none. Raises: Corruption,
    BackendUnavailable."""
    if checkpoint.catalog is None:
        return None
    chain = {
        int(Path(file.path).stem): file
        for file in checkpoint.files
        if file.path.startswith(f"{MANIFEST_DIRECTORY}/")
    }
    names = [f"{number:012d}.json" for number in chain]
    found = catalog_store.load(names, lambda number: fetched(store, chain[number])).catalog
    if found.number != checkpoint.catalog:
        raise Corruption(f"checkpoint {checkpoint.number}: its catalog is {found.number}")
    return found


def fetched(store: ObjectStore, file: TermFile) -> bytes:
    """All of a file's bytes. Raises: Corruption, BackendUnavailable."""
    try:
        data = b"".join(store.get(name) for name, _ in file.pieces())
    except ObjectMissing as error:
        raise Corruption(f"{file.path}: object {error} is missing") from None
    if (len(data), zlib.crc32(data)) != (file.bytes, file.crc32):
        raise Corruption(f"{file.path}: its objects are damaged (checksum)")
    return data
