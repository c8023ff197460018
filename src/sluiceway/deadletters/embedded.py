"""Dead letters in files beside the blocks, which the seals write (docs/formats/deadletters.md).

Invariant: only files that the manifest names are read; one that expires meanwhile is passed over.
"""

from collections.abc import Callable

import msgspec

from sluiceway.deadletters.interface import Held, Letter, Page, Selection
from sluiceway.errors import BackendUnavailable, Corruption, TenantFault
from sluiceway.kernels import Disk, read_letters
from sluiceway.tiers.manifest import LettersEntry, Version

FILES_A_PAGE_MAX = 64
LETTERS_A_PAGE_MAX = 10_000


class Answer(msgspec.Struct):
    """What the kernel says of one file."""

    letters: list[Letter]
    matched: int
    damaged_chunks: int


class EmbeddedDeadLetters:
    """A DeadLetters (interface.py) over a shard's directory."""

    def __init__(self, disk: Disk, version: Callable[[], Version]) -> None:
        self._disk = disk
        self._version = version

    def browse(self, selection: Selection, limit: int = 100, cursor: str | None = None) -> Page:
        limit = max(1, min(limit, LETTERS_A_PAGE_MAX))
        sequence, skip = read_cursor(cursor)
        letters: list[Letter] = []
        damaged = 0
        files = [
            file
            for file in self._version().letters
            if file.first_sequence >= sequence and overlaps(file, selection)
        ]
        for file in files[:FILES_A_PAGE_MAX]:
            skipped = skip if file.first_sequence == sequence else 0
            found, bad = self._read(file, selection, skipped, limit - len(letters))
            letters += found
            damaged += bad
            if len(letters) == limit:
                after = f"{file.first_sequence}.{skipped + len(found)}"
                return Page(tuple(letters), after, damaged)
        rest = files[FILES_A_PAGE_MAX:]
        return Page(tuple(letters), f"{rest[0].first_sequence}.0" if rest else None, damaged)

    def held(self) -> Held:
        files = self._version().letters
        return Held(
            files=len(files),
            letters=sum(file.letters for file in files),
            points=sum(file.points for file in files),
            bytes=sum(file.bytes for file in files),
        )

    def _read(
        self, file: LettersEntry, selection: Selection, skip: int, limit: int
    ) -> tuple[list[Letter], int]:
        query = {**msgspec.structs.asdict(selection), "skip": skip, "limit": limit}
        try:
            text = read_letters(self._disk, file.path, msgspec.json.encode(query).decode())
        except (BackendUnavailable, OSError):
            if file in self._version().letters:
                raise
            return [], 0  # It expired.
        except Corruption:
            return [], 1
        answer = msgspec.json.decode(text, type=Answer)
        return answer.letters, answer.damaged_chunks


def overlaps(file: LettersEntry, selection: Selection) -> bool:
    later = file.last_received_ms >= selection.since_ms
    return later and file.first_received_ms < selection.until_ms


def read_cursor(cursor: str | None) -> tuple[int, int]:
    """(first sequence of the file, letters of it already told)."""
    if cursor is None:
        return 0, 0
    sequence, _, skip = cursor.partition(".")
    if not (sequence.isdecimal() and skip.isdecimal() and len(cursor) < 40):
        raise TenantFault(400, "sluiceway-cursor-invalid", "not a cursor of dead letters")
    return int(sequence), int(skip)
