"""Taking a shard: by going on with one's own, or by making a directory of another's checkpoint.

Invariant: a directory holds the hot tier of exactly one term; what another term left in it is set
aside, never mixed. The shard is opened only after the claim stands in the object store.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.objects.interface import ObjectExists, ObjectStore
from sluiceway.services.backup.inventory import HOT_DIRECTORY
from sluiceway.services.backup.restore import sync_directory, write_file
from sluiceway.services.offsite.document import (
    FORMAT_VERSION,
    Checkpoint,
    name_of,
    newest,
)
from sluiceway.tiers import manifest as hot_manifest
from sluiceway.tiers import two_copies

OWNER = "offsite.json"
MANIFESTS = f"{HOT_DIRECTORY}/manifest"
OURS = ("hot", "journal")
TRIES_MAX = 16
OWNER_BYTES = 8
Random = Callable[[int], bytes]
log = structlog.get_logger()


class Owner(msgspec.Struct, frozen=True):
    """Which directory this is."""

    owner: str


def owner_of(data_dir: Path, random: Random) -> str:
    """The directory's name, which it gets now if it has none. Raises: Corruption, OSError."""
    place = data_dir / OWNER
    try:
        return msgspec.json.decode(place.read_bytes(), type=Owner).owner
    except FileNotFoundError:
        pass
    except msgspec.MsgspecError as error:
        raise Corruption(f"{place}: {error}") from None
    owner = random(OWNER_BYTES).hex()
    new = data_dir / f"{OWNER}.new"
    with new.open("wb") as file:
        file.write(msgspec.json.encode(Owner(owner)))
        file.flush()
        os.fsync(file.fileno())
    new.replace(place)
    sync_directory(data_dir)
    return owner


def take_shard(store: ObjectStore, data_dir: Path, clock: Clock, random: Random) -> Checkpoint:
    """The newest checkpoint, which is this directory's own when it returns. Blocks for the store.

    The directory's lock is held, and the shard in it is not open.
    Raises: Corruption, BackendUnavailable, OSError.
    """
    owner = owner_of(data_dir, random)
    for _ in range(TRIES_MAX):
        last = newest(store)
        if last is not None and last.owner == owner and not behind(data_dir, last):
            return last
        if last is not None:
            refit(store, data_dir, last)
        taken = Checkpoint(
            FORMAT_VERSION,
            1 if last is None else last.number + 1,
            1 if last is None else last.term + 1,
            owner,
            clock.now_ms(),
            None if last is None else last.manifest,
            () if last is None else last.files,
        )
        try:
            store.create(name_of(taken.number), two_copies.encode(taken))
        except ObjectExists:
            continue  # somebody was faster, and what they made is what we must begin from
        log.info("shard_taken", term=taken.term, checkpoint=taken.number)
        return taken
    raise BackendUnavailable(f"{TRIES_MAX} others took the shard while we tried")


def behind(data_dir: Path, last: Checkpoint) -> bool:
    """Lacks the directory what its own checkpoint has? Then somebody has emptied it."""
    names = (hot_manifest.NAME.fullmatch(path.name) for path in (data_dir / MANIFESTS).glob("*"))
    held = max((int(match[1]) for match in names if match), default=0)
    return last.manifest is not None and held < last.manifest.number


def refit(store: ObjectStore, data_dir: Path, last: Checkpoint) -> None:
    """Make the directory what the checkpoint says. Raises: Corruption, BackendUnavailable,
    OSError; the directory then holds no shard, and the next try begins anew."""
    set_aside(data_dir, last.number)
    if last.manifest is None:
        return
    for file in last.files:
        write_file(store, file, data_dir / file.path, data_dir)
    data = hot_manifest.encode(last.manifest)
    place = data_dir / MANIFESTS / f"{last.manifest.number:012d}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    # Last: without a manifest the files are strays, and a try that broke off is set aside.
    with place.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    for directory in (place.parent, *place.parent.relative_to(data_dir).parents):
        sync_directory(data_dir / directory)


def set_aside(data_dir: Path, number: int) -> None:
    """Move what another term left out of the way, for people to look at."""
    there = [name for name in OURS if (data_dir / name).exists()]
    if not there:
        return
    aside = data_dir / f"fenced-{number:012d}"
    at = 0
    while (place := aside if not at else aside.with_name(f"{aside.name}-{at}")).exists():
        at += 1
    place.mkdir()
    for name in there:
        (data_dir / name).rename(place / name)
    sync_directory(data_dir)
    log.warning("shard_set_aside", place=str(place))
