"""The newest manifest cannot be read: was it never committed, or is it damaged?

A commit that a power cut tore and a committed manifest that rotted look the same; what happened
after a commit does not: the journal is truncated, files it forgot are unlinked. Invariant: no file
is removed here, and `mend_newest` returns only when removing strays loses nothing: what a torn
commit left, the journal still holds.
"""

import struct
import zlib

import msgspec
import structlog

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import Disk, read_seal
from sluiceway.processor.checkpoint import seal_change
from sluiceway.tiers.interface import SealReport
from sluiceway.tiers.manifest import (
    QUARANTINE_SUFFIX,
    Change,
    ManifestStore,
    Version,
    apply_change,
)

# next sequence and CRC of a state file's header (docs/formats/state.md).
STATE_HEADER = struct.Struct("<16xQ8xI")
FOLDERS = ("blocks", "state", "letters", "policies", "hours")


def strays(disk: Disk, version: Version, directory: str) -> list[str]:
    """Files of seals, merges and policies that `version` does not name, but for those set aside."""
    named = version.files()
    paths = [
        f"{directory}/{folder}/{name}"
        for folder in FOLDERS
        for name in disk.list(f"{directory}/{folder}")
    ]
    return [p for p in paths if p not in named and not p.endswith(QUARANTINE_SUFFIX)]


def count_set_aside(disk: Disk, directory: str) -> int:
    """Files that wait for a person: see the runbook in docs/operations.md."""
    folders = ("manifest", *FOLDERS)
    names = (name for folder in folders for name in disk.list(f"{directory}/{folder}"))
    return sum(name.endswith(QUARANTINE_SUFFIX) for name in names)


def mend_newest(disk: Disk, manifests: ManifestStore, directory: str, journal: str) -> None:
    """Where the newest manifest is unreadable, have the next commit take its number safely.

    Raises: Corruption where it was committed and the files before it are gone; nothing is changed.
    """
    path = manifests.unreadable
    if path is None:
        return
    log = structlog.get_logger("recovery")
    before = manifests.version
    sealed = find_seal(disk, before, directory)
    after = before if sealed is None else apply_change(before, sealed)
    missing = missing_files(disk, after, directory)
    if missing:
        raise Corruption(
            f"manifest {path} is damaged in both copies, and it was committed: {missing[0]}, "
            "which the one before it names, is gone. Nothing was removed; restore it from a backup"
        )
    if sealed is not None:
        # The files of the seal say all that the manifest said: nothing is lost.
        manifests.commit(sealed, replace=True)
        log.warning("manifest_made_again", path=path, next_sequence=sealed.next_sequence)
        return
    left = strays(disk, before, directory)
    seals = [stray for stray in left if "/state/" in stray]
    if not any(goes_beyond(disk.read(stray), before.next_sequence) for stray in seals) or (
        journal_reaches_back(disk.list(journal), before.next_sequence)
    ):
        return  # Torn: its records are in the journal.
    for stray in left:
        disk.rename(stray, stray + QUARANTINE_SUFFIX)
    for folder in FOLDERS:
        disk.sync_directory(f"{directory}/{folder}")
    manifests.set_aside()
    log.error(
        "manifest_damaged", path=path, files_set_aside=left, from_sequence=before.next_sequence
    )


def find_seal(disk: Disk, before: Version, directory: str) -> Change | None:
    """The change of a seal of which the files are whole and that goes on right where `before`
    ends, by the same writer. Whether it was committed does not matter: the files hold exactly the
    records [before.next_sequence, its next_sequence), each of them durable when they were read."""
    for path in strays(disk, before, directory):
        if "/state/" not in path:
            continue
        try:
            found = read_seal(disk, path)
        except (Corruption, BackendUnavailable):
            continue
        if found is not None:
            report, fence = msgspec.json.decode(found[0], type=SealReport), found[1]
            if fence == before.fence and report.first_sequence == before.next_sequence:
                return seal_change(report, before)
    return None


def goes_beyond(state: bytes, sequence: int) -> bool:
    """May this state file hold records from `sequence` on? One of which the header is damaged may;
    what a seal that failed and was tried again left does not."""
    header = state[: STATE_HEADER.size]
    if len(header) < STATE_HEADER.size:
        return True
    next_sequence, crc32 = STATE_HEADER.unpack(header)
    return bool(zlib.crc32(header[:-4]) != crc32 or next_sequence > sequence)


def missing_files(disk: Disk, version: Version, directory: str) -> list[str]:
    held = {
        f"{directory}/{folder}/{name}"
        for folder in FOLDERS
        for name in disk.list(f"{directory}/{folder}")
    }
    return sorted(version.files() - held)


def journal_reaches_back(names: list[str], sequence: int) -> bool:
    """Are the segments with the records from `sequence` on there without a gap? By their names:
    number and first sequence (docs/formats/record.md). A number left out means a segment gone."""
    segments = sorted(
        (int(parts[0], 16), int(parts[1], 16))
        for name in names
        if name.endswith(".segment") and len(parts := name.split("-")) == 3
    )
    numbers = [number for number, _ in segments]
    held = [number for number, first in segments if first <= sequence]
    return bool(held) and numbers[-1] - max(held) == len(numbers) - numbers.index(max(held)) - 1
