"""The documents of an offsite checkpoint: the objects, and what a directory remembers.

Invariant: a checkpoint is numbered, create-only and never changed. docs/formats/offsite.md has
the layout.
"""

import re
from collections.abc import Iterator

import msgspec

from sluiceway.errors import Corruption, SluicewayError
from sluiceway.objects.interface import ObjectMissing, ObjectStore, check_name
from sluiceway.services.backup.index import FILES_PREFIX, File, pieces
from sluiceway.tiers import two_copies
from sluiceway.tiers.manifest import FORMAT_VERSION as MANIFEST_VERSION
from sluiceway.tiers.manifest import ManifestFile, Version, replay

FORMAT_VERSION = 2
PREFIX = "checkpoint"
NAME = re.compile(r"checkpoint/(\d{12})\.json")
FILE_NAME = re.compile(rf"{FILES_PREFIX}/(\d{{6,}})/.")


class Fenced(SluicewayError):
    """Another process has taken the shard over: this one must write nothing more."""

    exit_status = 3


class TermFile(File, frozen=True):
    """A file, whose objects stand below the term that stored them: what one term stores or
    removes is never another's, whatever their files are called."""

    term: int

    def pieces(self) -> Iterator[tuple[str, int]]:
        prefix = f"{FILES_PREFIX}/{self.term:06d}"
        return pieces(self.path, self.bytes, self.mark, prefix)


def term_of(name: str) -> int | None:
    """Of an object of a file; None of what is none."""
    match = FILE_NAME.match(name)
    return int(match[1]) if match else None


class Checkpoint(msgspec.Struct, frozen=True):
    """One checkpoint."""

    version: int
    number: int
    term: int
    owner: str
    committed_ms: int
    manifest: ManifestFile | None
    files: tuple[TermFile, ...]
    catalog: int | None = None
    """The number of the tiers' catalog, whose manifests are among `files`; None: it has none."""

    def hot(self) -> Version:
        """The hot tier that it stands for."""
        return Version() if self.manifest is None else replay([self.manifest])


def name_of(number: int) -> str:
    return f"{PREFIX}/{number:012d}.json"


def numbers(store: ObjectStore) -> list[int]:
    """The checkpoints that there are, ascending. Raises: BackendUnavailable."""
    names = (NAME.fullmatch(facts.name) for facts in store.list(PREFIX))
    return sorted(int(match[1]) for match in names if match)


def read(store: ObjectStore, number: int) -> Checkpoint:
    """Raises: ObjectMissing, Corruption, BackendUnavailable."""
    found = two_copies.decode(store.get(name_of(number)), Checkpoint, FORMAT_VERSION, "checkpoint")
    if found is None or found.number != number:
        raise Corruption(f"checkpoint {number} is damaged in both copies")
    for file in found.files:
        check_name(file.path)  # nothing is ever written outside the directory
    return found


def newest(store: ObjectStore) -> Checkpoint | None:
    """The newest checkpoint. A damaged one is not passed over: what is behind it is not what the
    shard was. Raises: Corruption, BackendUnavailable."""
    while held := numbers(store):
        try:
            return read(store, held[-1])
        except ObjectMissing:
            continue  # it went with its age while we looked
    return None


def snapshot_of(version: Version, committed_ms: int) -> ManifestFile:
    """The version as one manifest that stands alone."""
    return ManifestFile(
        version=MANIFEST_VERSION,
        number=version.number,
        snapshot=True,
        fence=version.fence,
        next_sequence=version.next_sequence,
        reason="seal",
        committed_ms=committed_ms,
        blocks=list(version.blocks),
        blocks_removed=[],
        states=list(version.states),
        states_removed=[],
        policies=list(version.policies),
        movements=version.movements,
        letters=list(version.letters),
        letters_removed=[],
        tables=list(version.tables),
        tables_removed=[],
        replays=list(version.replays),
        hours=list(version.hours),
        hours_removed=[],
        deletions=list(version.deletions),
        deleted=dict(version.deleted),
        schedule=list(version.schedule),
    )
