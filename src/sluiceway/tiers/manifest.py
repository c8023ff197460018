"""Manifests: which files are the hot tier, and up to which record they stand.

Invariant: a manifest is numbered, create-only and never changed; a change is committed when its
file and directory entry are durable, and not before. docs/formats/manifest.md has the layout.
"""

import re
import threading
from collections import Counter
from dataclasses import dataclass, field, replace

import msgspec

from sluiceway.clock import Clock
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.tiers import two_copies

FORMAT_VERSION = 2
SNAPSHOT_EVERY = 64
QUARANTINE_SUFFIX = ".quarantined"
NEW_SUFFIX = ".new"
NAME = re.compile(r"(\d{12})\.json")


class BlockEntry(msgspec.Struct, frozen=True):
    """One immutable file of points. Times are inclusive at both ends, so are the sequences."""

    path: str
    bytes: int
    crc32: int
    series: int
    points: int
    histogram_points: int
    min_ms: int
    max_ms: int
    first_sequence: int
    last_sequence: int
    codec: str = "fast"
    days: list[tuple[int, int]] = []
    """(UTC day number, points), ascending; empty where there were more than 128."""

    @property
    def rows(self) -> int:
        return self.points + self.histogram_points


class StateEntry(msgspec.Struct, frozen=True):
    """One state file (docs/formats/state.md)."""

    path: str
    bytes: int
    crc32: int
    next_sequence: int
    policy_version: int = 0
    """The highest that a record before `next_sequence` named."""


class LettersEntry(msgspec.Struct, frozen=True):
    """One file of dead letters (docs/formats/deadletters.md). All ends are inclusive."""

    path: str
    bytes: int
    crc32: int
    letters: int
    points: int
    first_received_ms: int
    last_received_ms: int
    first_sequence: int
    last_sequence: int


class HoursEntry(msgspec.Struct, frozen=True):
    """One file of recorded hours (docs/formats/hours.md). All ends are inclusive."""

    path: str
    bytes: int
    crc32: int
    hours: int
    first_hour: int
    last_hour: int
    first_sequence: int
    last_sequence: int


class TableEntry(msgspec.Struct, frozen=True):
    """One compiled policy (docs/formats/policy.md)."""

    version: int
    path: str
    bytes: int
    crc32: int


class Policy(msgspec.Struct, frozen=True):
    """What the judge of a record goes by; records name the version they were received under."""

    version: int
    series_max: int
    new_series: str = "accept"
    """`accept`, `refuse_disk` or `refuse_memory`."""
    table: int = 0
    """The version of the compiled policy; 0 is none."""


class Movements(msgspec.Struct, frozen=True):
    """Points that left or entered the stock after they were stored, since the beginning."""

    superseded: int = 0
    expired: int = 0
    deleted: int = 0
    derived: int = 0
    replayed: int = 0

    def plus(
        self, superseded: int = 0, expired: int = 0, replayed: int = 0, deleted: int = 0
    ) -> "Movements":
        return msgspec.structs.replace(
            self,
            superseded=self.superseded + superseded,
            expired=self.expired + expired,
            replayed=self.replayed + replayed,
            deleted=self.deleted + deleted,
        )


class Replay(msgspec.Struct, frozen=True):
    """One replay of a tenant's dead letters, and how far it has come.

    Taken are the letters that it selects, of records before `next_sequence`. It is over at
    `end_sequence`: letters that it makes itself belong to later records.
    """

    number: int
    tenant: str
    reason: str | None
    since_ms: int
    until_ms: int
    end_sequence: int
    next_sequence: int = 0
    letters: int = 0
    points: int = 0

    @property
    def done(self) -> bool:
        return self.next_sequence >= self.end_sequence


class Matcher(msgspec.Struct, frozen=True):
    """One condition on a label, as PromQL writes it: `op` is `=`, `!=`, `=~` or `!~`."""

    name: str
    op: str
    value: str


class Deletion(msgspec.Struct, frozen=True):
    """An order to delete points of records before `end_sequence`; pending until `done_ms`.

    `whole`: the tenant with its name and dead letters. `raw_only`: points past their tenant's
    retention, counted as expired; windows stay. `points` and `letter_points` grow as files
    are written anew; `series` is what the order selected, `windows` what it took of the warm and
    cold tiers.
    """

    number: int
    tenant: str
    whole: bool
    matchers: tuple[Matcher, ...]
    before_ms: int | None
    end_sequence: int
    asked_ms: int
    actor: str
    series: int = 0
    points: int = 0
    letter_points: int = 0
    windows: int = 0
    done_ms: int | None = None
    raw_only: bool = False


class ManifestFile(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON object of one manifest."""

    version: int
    number: int
    snapshot: bool
    fence: int
    next_sequence: int
    reason: str
    committed_ms: int
    blocks: list[BlockEntry]
    blocks_removed: list[str]
    states: list[StateEntry]
    states_removed: list[str]
    policies: list[Policy]
    movements: Movements
    letters: list[LettersEntry] = []
    letters_removed: list[str] = []
    tables: list[TableEntry] = []
    tables_removed: list[str] = []
    replays: list[Replay] = []
    hours: list[HoursEntry] = []
    hours_removed: list[str] = []
    deletions: list[Deletion] = []
    deleted: dict[str, int] = {}
    """Points deleted since the beginning, by tenant."""
    schedule: list[tuple[int, int]] = []


@dataclass(frozen=True, slots=True)
class Version:
    """The hot tier after a manifest: everything a reader or a recovery needs to know."""

    number: int = 0
    fence: int = 0
    next_sequence: int = 0
    blocks: tuple[BlockEntry, ...] = ()
    """Oldest data first: by `last_sequence`, then by time."""
    states: tuple[StateEntry, ...] = ()
    policies: tuple[Policy, ...] = ()
    movements: Movements = field(default_factory=Movements)
    letters: tuple[LettersEntry, ...] = ()
    tables: tuple[TableEntry, ...] = ()
    replays: tuple[Replay, ...] = ()
    hours: tuple[HoursEntry, ...] = ()
    """In the order in which they were written."""
    deletions: tuple[Deletion, ...] = ()
    deleted: dict[str, int] = field(default_factory=dict)
    schedule: tuple[tuple[int, int], ...] = ()
    """(first sequence, policy version), ascending: what records of a log that others write too are
    judged by. Empty where each record says it."""

    def pending(self) -> tuple[Deletion, ...]:
        return tuple(order for order in self.deletions if order.done_ms is None)

    def files(self) -> set[str]:
        return set(paths_of(self))

    def policy_version_sealed(self) -> int:
        """The highest policy version that a record in blocks and state files named."""
        return self.states[-1].policy_version if self.states else 0


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit alters; None leaves a value as it is."""

    reason: str
    blocks: tuple[BlockEntry, ...] = ()
    blocks_removed: tuple[str, ...] = ()
    states: tuple[StateEntry, ...] = ()
    states_removed: tuple[str, ...] = ()
    next_sequence: int | None = None
    fence: int | None = None
    policies: tuple[Policy, ...] | None = None
    superseded: int = 0
    expired: int = 0
    letters: tuple[LettersEntry, ...] = ()
    letters_removed: tuple[str, ...] = ()
    tables: tuple[TableEntry, ...] = ()
    tables_removed: tuple[str, ...] = ()
    replays: tuple[Replay, ...] | None = None
    replayed: int = 0
    hours: tuple[HoursEntry, ...] = ()
    hours_removed: tuple[str, ...] = ()
    deletions: tuple[Deletion, ...] | None = None
    deleted: dict[str, int] = field(default_factory=dict)
    """Points that go, by tenant."""
    schedule: tuple[tuple[int, int], ...] | None = None

    def made(self) -> list[str]:
        return paths_of(self)

    def gone(self) -> list[str]:
        return [
            *self.blocks_removed,
            *self.states_removed,
            *self.letters_removed,
            *self.tables_removed,
            *self.hours_removed,
        ]


def paths_of(what: Version | Change) -> list[str]:
    """Files that it names."""
    return [
        *(block.path for block in what.blocks),
        *(state.path for state in what.states),
        *(file.path for file in what.letters),
        *(table.path for table in what.tables),
        *(file.path for file in what.hours),
    ]


def apply_change(version: Version, change: Change) -> Version:
    """The version after `change`: a pure function."""
    gone = set(change.gone())
    blocks = [block for block in version.blocks if block.path not in gone]
    states = [state for state in version.states if state.path not in gone]
    letters = [file for file in version.letters if file.path not in gone]
    tables = [table for table in version.tables if table.path not in gone]
    hours = [file for file in version.hours if file.path not in gone]
    return Version(
        number=version.number + 1,
        fence=version.fence if change.fence is None else change.fence,
        next_sequence=(
            version.next_sequence if change.next_sequence is None else change.next_sequence
        ),
        blocks=tuple(sorted([*blocks, *change.blocks], key=block_order)),
        states=(*states, *change.states),
        policies=version.policies if change.policies is None else change.policies,
        movements=version.movements.plus(
            change.superseded, change.expired, change.replayed, sum(change.deleted.values())
        ),
        letters=tuple(sorted([*letters, *change.letters], key=lambda file: file.first_sequence)),
        tables=(*tables, *change.tables),
        replays=version.replays if change.replays is None else change.replays,
        hours=(*hours, *change.hours),
        deletions=version.deletions if change.deletions is None else change.deletions,
        deleted=dict(Counter(version.deleted) + Counter(change.deleted)),
        schedule=version.schedule if change.schedule is None else change.schedule,
    )


def block_order(block: BlockEntry) -> tuple[int, int, str]:
    return (block.last_sequence, block.min_ms, block.path)


def encode(manifest: ManifestFile) -> bytes:
    """The bytes of a manifest."""
    return two_copies.encode(manifest)


def decode(data: bytes) -> ManifestFile | None:
    """The manifest, or None where neither copy is whole. Raises: Corruption."""
    return two_copies.decode(data, ManifestFile, FORMAT_VERSION, "manifest")


class ManifestStore:
    """The manifests of one shard. `commit` is the only way its set of files changes.

    Thread-safe; a commit blocks for two syncs.
    """

    def __init__(self, disk: Disk, directory: str, clock: Clock) -> None:
        self._disk = disk
        self._directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._version = Version()
        self._numbers: list[int] = []
        self._uncertain: int | None = None

    @property
    def version(self) -> Version:
        return self._version

    def _path(self, number: int) -> str:
        return f"{self._directory}/{number:012d}.json"

    @property
    def unreadable(self) -> str | None:
        """The newest manifest's path while it is no manifest: torn, or damaged in both copies.
        The next commit puts another in its place."""
        return None if self._uncertain is None else self._path(self._uncertain)

    def load(self) -> Version:
        """The last version that can be read: the last committed one unless `unreadable`, which is
        for the caller to judge. Raises: Corruption, OSError."""
        names = (NAME.fullmatch(name) for name in self._disk.list(self._directory))
        numbers = sorted(int(match[1]) for match in names if match)
        chain: list[ManifestFile] = []
        for number in reversed(numbers):
            manifest = decode(self._disk.read(self._path(number)))
            if manifest is None:
                if number != numbers[-1]:
                    raise Corruption(f"manifest {self._path(number)} is damaged in both copies")
                self._uncertain = number
                continue
            expected = chain[-1].number - 1 if chain else number
            if manifest.number != number or number != expected:
                raise Corruption(f"manifest {self._path(expected)} is missing")
            chain.append(manifest)
            if manifest.snapshot:
                break
        before = chain[0].number if chain else 0
        if self._uncertain is not None and self._uncertain != before + 1:
            raise Corruption(f"manifest {self._path(self._uncertain)} is damaged in both copies")
        if chain and not chain[-1].snapshot:
            raise Corruption(f"the snapshot before {self._path(chain[-1].number)} is missing")
        self._version = replay(list(reversed(chain)))
        self._numbers = [number for number in numbers if number != self._uncertain]
        return self._version

    def commit(self, change: Change, replace: bool = False) -> Version:
        """Make `change` durable and return the version after it; `replace` puts it in an
        unreadable manifest's place at once, so that at no moment neither is there.

        Raises: OSError; then the change may or may not survive a crash, the caller must keep
        every file it names and may commit again.
        """
        with self._lock:
            if not replace:
                self._settle()
            after = apply_change(self._version, change)
            snapshot = (after.number - 1) % SNAPSHOT_EVERY == 0
            manifest = ManifestFile(
                version=FORMAT_VERSION,
                number=after.number,
                snapshot=snapshot,
                fence=after.fence,
                next_sequence=after.next_sequence,
                reason=change.reason,
                committed_ms=self._clock.now_ms(),
                blocks=list(after.blocks if snapshot else change.blocks),
                blocks_removed=[] if snapshot else list(change.blocks_removed),
                states=list(after.states if snapshot else change.states),
                states_removed=[] if snapshot else list(change.states_removed),
                policies=list(after.policies),
                movements=after.movements,
                replays=list(after.replays),
                deletions=list(after.deletions),
                deleted=after.deleted,
                letters=list(after.letters if snapshot else change.letters),
                letters_removed=[] if snapshot else list(change.letters_removed),
                tables=list(after.tables if snapshot else change.tables),
                tables_removed=[] if snapshot else list(change.tables_removed),
                hours=list(after.hours if snapshot else change.hours),
                hours_removed=[] if snapshot else list(change.hours_removed),
                schedule=list(after.schedule),
            )
            self._uncertain = after.number
            self._write(self._path(after.number), encode(manifest), replace)
            self._uncertain = None
            self._version = after
            self._numbers.append(after.number)
            if snapshot:
                self._forget_old(after.number)
            return after

    def _write(self, path: str, data: bytes, replace: bool) -> None:
        if not replace:
            self._disk.write_new(path, data)
            return
        new = path + NEW_SUFFIX
        if new.rpartition("/")[2] in self._disk.list(self._directory):
            self._disk.remove(new)
        self._disk.write_new(new, data)
        self._disk.rename(new, path)
        self._disk.sync_directory(self._directory)

    def set_aside(self) -> None:
        """Keep the unreadable manifest under another name, durably. Raises: OSError."""
        if self._uncertain is not None:
            path = self._path(self._uncertain)
            self._disk.rename(path, path + QUARANTINE_SUFFIX)
            self._disk.sync_directory(self._directory)
            self._uncertain = None

    def _settle(self) -> None:
        """Remove a manifest that failed to commit, so that its number can be used again."""
        if self._uncertain is not None:
            if f"{self._uncertain:012d}.json" in self._disk.list(self._directory):
                self._disk.remove(self._path(self._uncertain))
            self._disk.sync_directory(self._directory)
            self._uncertain = None

    def _forget_old(self, snapshot: int) -> None:
        """Unlink manifests before the last-but-one snapshot."""
        keep_from = snapshot - SNAPSHOT_EVERY
        for number in [number for number in self._numbers if number < keep_from]:
            self._disk.remove(self._path(number))
            self._numbers.remove(number)


def replay(chain: list[ManifestFile]) -> Version:
    """The version after a snapshot and the deltas behind it: a pure function."""
    version = Version()
    for manifest in chain:
        change = Change(
            reason=manifest.reason,
            blocks=tuple(manifest.blocks),
            blocks_removed=tuple(manifest.blocks_removed),
            states=tuple(manifest.states),
            states_removed=tuple(manifest.states_removed),
            next_sequence=manifest.next_sequence,
            fence=manifest.fence,
            policies=tuple(manifest.policies),
            letters=tuple(manifest.letters),
            letters_removed=tuple(manifest.letters_removed),
            tables=tuple(manifest.tables),
            tables_removed=tuple(manifest.tables_removed),
            replays=tuple(manifest.replays),
            hours=tuple(manifest.hours),
            hours_removed=tuple(manifest.hours_removed),
            deletions=tuple(manifest.deletions),
            schedule=tuple(manifest.schedule),
        )
        version = replace(
            apply_change(version, change),
            number=manifest.number,
            movements=manifest.movements,
            deleted=manifest.deleted,
        )
    return version
