"""Taking a shard: by going on with one's own, or by making a directory of another's checkpoint.

Invariant: a directory holds the hot tier of exactly one term; what another term left in it is set
aside, never mixed. The shard is opened only after the claim stands in the object store; what was
fetched takes its place only after that too.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.objects.interface import ObjectExists, ObjectStore
from sluiceway.services.backup.inventory import HOT_DIRECTORY, JOURNAL_DIRECTORY, file_crc
from sluiceway.services.backup.restore import sync_directory, write_file
from sluiceway.services.offsite.document import (
    FORMAT_VERSION,
    Checkpoint,
    TermFile,
    name_of,
    newest,
    numbers,
)
from sluiceway.tiers import catalog_store, two_copies
from sluiceway.tiers import manifest as hot_manifest
from sluiceway.tiers.paths import MANIFEST_DIRECTORY as CATALOG

OWNER = "offsite.json"
MANIFESTS = f"{HOT_DIRECTORY}/manifest"
HOT = "hot"
TIERS = "tiers"
OURS = (HOT, JOURNAL_DIRECTORY, TIERS)
"""What stands for records of one term: the catalog of the tiers says up to which record hours are
rolled, and which raw points may go; beside another term's hot tier it would be wrong of both. An
outbox of acked requests that are not in Kafka yet is no term's: it stays, and is sent."""
TAKING = "taking"
"""Where files are fetched to. A start that breaks off leaves them for the next."""
FENCED_MAX = 8
"""Directories set aside and not looked at: more mean that two take the shard from each other."""
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


def take_shard(
    store: ObjectStore,
    data_dir: Path,
    clock: Clock,
    random: Random,
    later: Callable[[TermFile], bool] = lambda file: False,
    log_has_all: bool = False,
) -> Checkpoint:
    """The newest checkpoint, which is this directory's own when it returns. Blocks for the store.

    Files that may come `later` are not fetched. With `log_has_all`, points of another term that
    are here need not be set aside: their records are where the successor reads them.
    Each start is a term of its own: a copy of this directory, or an earlier process whose request
    comes late, is another. The directory's lock is held, and the shard in it is not open.
    Raises: Corruption, BackendUnavailable, OSError.
    """
    owner = owner_of(data_dir, random)
    for _ in range(TRIES_MAX):
        last = newest(store)
        fetched = last is not None and (last.owner != owner or behind(data_dir, last))
        if last is not None and fetched:
            check_aside(data_dir)
            try:
                fetch_hot(store, data_dir, last, later)
            except Corruption:
                if numbers(store)[-1:] == [last.number]:
                    raise
                continue  # it went with its age: its owner still runs
            set_aside(data_dir, last.number)
        taken = claim(store, last, owner, clock)
        if taken is None:
            continue  # somebody was faster, and what they made is what we must begin from
        if fetched:
            put_in_place(data_dir)
            if log_has_all:
                drop_aside(data_dir)
        log.info("shard_taken", term=taken.term, checkpoint=taken.number)
        return taken
    raise BackendUnavailable(f"{TRIES_MAX} others took the shard while we tried")


def claim(
    store: ObjectStore, last: Checkpoint | None, owner: str, clock: Clock
) -> Checkpoint | None:
    """The checkpoint after `last`, with the same data in the next term; None where `last` is not
    the newest any more."""
    taken = Checkpoint(
        FORMAT_VERSION,
        1 if last is None else last.number + 1,
        1 if last is None else last.term + 1,
        owner,
        clock.now_ms(),
        None if last is None else last.manifest,
        () if last is None else last.files,
        None if last is None else last.catalog,
    )
    try:
        store.create(name_of(taken.number), two_copies.encode(taken))
    except ObjectExists:
        return None
    # A number that was free may be one that went with its age, far behind the newest.
    return taken if numbers(store)[-1] == taken.number else None


def behind(data_dir: Path, last: Checkpoint) -> bool:
    """Lacks the directory what its own checkpoint has? Then somebody has emptied it, or its start
    broke off before what it had fetched was in its place."""
    hot = 0 if last.manifest is None else last.manifest.number
    tiers = last.catalog or 0
    return newest_of(data_dir / MANIFESTS) < hot or newest_of(data_dir / CATALOG) < tiers


def newest_of(directory: Path) -> int:
    """The highest number of a manifest there."""
    names = (hot_manifest.NAME.fullmatch(path.name) for path in directory.glob("*"))
    return max((int(match[1]) for match in names if match), default=0)


def fetch_hot(
    store: ObjectStore,
    data_dir: Path,
    last: Checkpoint,
    later: Callable[[TermFile], bool] = lambda file: False,
) -> None:
    """Bring the checkpoint's hot tier and catalog beside the directory's own; what an earlier try
    has brought is taken. Raises: Corruption, BackendUnavailable, OSError."""
    taking = data_dir / TAKING
    shutil.rmtree(taking / MANIFESTS, ignore_errors=True)
    wanted = {taking / file.path: file for file in last.files if not later(file)}
    for place in [place for place in taking.rglob("*") if place.is_file()]:
        file = wanted.get(place)
        if file is not None and file_crc(place) == (file.bytes, file.crc32):
            del wanted[place]
        else:
            place.unlink()
    for place, file in wanted.items():
        write_file(store, file, place, data_dir)
    if last.manifest is None:
        return
    place = taking / MANIFESTS / f"{last.manifest.number:012d}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as out:
        out.write(hot_manifest.encode(last.manifest))
        out.flush()
        os.fsync(out.fileno())
    (taking / HOT_DIRECTORY).mkdir(parents=True, exist_ok=True)
    for directory, _, _ in os.walk(taking):
        sync_directory(Path(directory))


def put_in_place(data_dir: Path) -> None:
    """What was fetched is the directory's hot tier and catalog from now on. It has none. The hot
    tier comes last: a directory without it is behind, and begins again."""
    taking = data_dir / TAKING
    for name in (TIERS, HOT):
        if (taking / name).exists():
            (taking / name).rename(data_dir / name)
            sync_directory(data_dir)
    shutil.rmtree(taking, ignore_errors=True)


def drop_aside(data_dir: Path) -> None:
    """Remove what the log and the store have of directories that were set aside; windows of
    minutes and hours, which nobody else may have, stay, and with them the directory."""
    for place in aside(data_dir):
        for name in (HOT, JOURNAL_DIRECTORY):
            shutil.rmtree(place / name, ignore_errors=True)
        tiers = (place / TIERS / name for name in ("warm", "cold"))
        held = any(path.is_file() for folder in tiers for path in folder.rglob("*"))
        if not held or are_objects(place):
            shutil.rmtree(place, ignore_errors=True)


def are_objects(place: Path) -> bool:
    """Was every file of windows brought to the store before its catalog named it? What a term has
    there and no checkpoint names, the next one rolls again out of raw points."""
    try:
        return all(file.object for file in catalog_store.follow(place).catalog().files)
    except (Corruption, OSError):
        return False


def aside(data_dir: Path) -> list[Path]:
    """What was set aside so far."""
    return sorted(data_dir.glob("fenced-*"))


def check_aside(data_dir: Path) -> None:
    """Raises: BackendUnavailable."""
    held = aside(data_dir)
    if len(held) >= FENCED_MAX:
        raise BackendUnavailable(
            f"{data_dir} holds {len(held)} directories fenced-*, of other terms: see that no two "
            "processes take the shard from each other, and move or remove what is not needed"
        )


def set_aside(data_dir: Path, number: int) -> None:
    """Move what another term left out of the way, for people to look at."""
    there = [name for name in OURS if (data_dir / name).exists()]
    if not there:
        return
    name, at = f"fenced-{number:012d}", 0
    while (place := data_dir / (f"{name}-{at}" if at else name)).exists():
        at += 1
    place.mkdir()
    for name in there:
        (place / name).parent.mkdir(exist_ok=True)
        (data_dir / name).rename(place / name)
        sync_directory((place / name).parent)
        sync_directory((data_dir / name).parent)
    sync_directory(place)
    sync_directory(data_dir)
    log.warning("shard_set_aside", place=str(place))
