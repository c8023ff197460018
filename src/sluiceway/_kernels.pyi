"""Contracts of the Rust kernels. One section a kernel family; `kernels.py` is the door to them.

Unless said otherwise a call drops the GIL, may raise the tree of `sluiceway.errors`, and borrows
its arguments for the call only.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def arm_mutant(name: str | None = None) -> bool:
    """Arm one durability mutant (or none). False where this build has no mutants."""

def mutant_on(name: str) -> bool: ...
def gil_reacquisitions() -> int:
    """How often a kernel of this process has taken the GIL back."""

def time_detached() -> None:
    """From now on `detached_ns` tells; every kernel is a little slower for it. For tests."""

def detached_ns() -> int:
    """This thread's nanoseconds on a processor within kernels without the GIL."""

# --- disk (A) ---------------------------------------------------------------------------------

class Disk:
    """A data directory: every durable byte goes through one. Paths are relative, `/`-separated;
    the empty path is the directory itself, where one is asked for. Raises: OSError with errno."""

    @staticmethod
    def real(root: str) -> Disk: ...
    @staticmethod
    def memory() -> Disk:
        """Pages and directory entries stay volatile until synced; every change is recorded."""
    def faulty(self, plan: dict[str, Any]) -> Disk:
        """This disk behind a plan: {"rules": [{"operation": "create" | "open" | "read" | "write"
        | "allocate" | "sync" | "sync_directory" | "rename" | "remove", "path": prefix,
        "after": good ones first, "times": absent = for ever, "error": "EIO" | "ENOSPC" |
        "EMFILE" | "EINTR", "short_bytes": written all the same}], "bytes_max": a full disk}."""
    def elsewhere(self, files: dict[str, int], fetch: Callable[[str, int, int], bytes]) -> Disk:
        """This disk with files (bytes by path) that are not here: `fetch` is asked for (path,
        offset, length) of them, on any thread. What it raises is an OSError of the read."""
    def set_faults(self, plan: dict[str, Any]) -> None:
        """Follow another plan from now on ({} = no faults)."""
    def fault_count(self) -> int: ...
    def read(self, path: str) -> bytes: ...
    def write_new(self, path: str, data: bytes) -> None:
        """Create-only and durable: the file and its directory entry are synced."""
    def list(self, directory: str) -> list[str]:
        """Names, sorted; empty where the directory is absent."""
    def remove(self, path: str) -> None:
        """Durable only after `sync_directory`; so is `rename` (atomic, within a directory)."""
    def rename(self, source: str, target: str) -> None: ...
    def sync_directory(self, path: str) -> None: ...
    def create_directory(self, path: str) -> None:
        """With its parents, durably."""
    def lock(self) -> None:
        """Take the directory's exclusive lock. Raises: BackendUnavailable (somebody has it)."""
    def used_bytes(self) -> int: ...
    def free_bytes(self) -> int: ...
    def operation_count(self) -> int:
        """Changes and syncs so far. This and the next two: in-memory disks only."""
    def operation_text(self, number: int) -> str: ...
    def crash_image(self, after_operation: int, seed: int) -> Disk:
        """What a power cut after that many operations may leave; same seed, same image."""

# --- journal (A) ------------------------------------------------------------------------------

_RecordFields = tuple[int, int, int, int, int, int, int, int, list[int], str, int]
"""signal, format, encoding, decoder version, policy version, received ms, dedup key, points
received, points rejected by reason (one count each), tenant, age in days."""

class Journal:
    """The journal by itself; any thread may call. The shard has its own within."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        next_sequence_at_least: int = 0,
        fence: int = 1,
        segment_bytes: int = ...,
        bytes_max: int = ...,
        queue_bytes_max: int = ...,
        salt: int = 0,
    ) -> None: ...
    def append(self, fields: _RecordFields, payload: bytes) -> int:
        """Queue a record: its ticket, dense. Never waits for the disk. Raises: Overloaded."""
    def append_request(self, header: RequestHeader, payload: bytes) -> int:
        """As `append`, of a request's header as `slice_request` made it."""
    def ack_fd(self) -> int:
        """An eventfd, readable once per decided group."""
    def drain(self) -> list[tuple[int, int, int | None, str]]:
        """Groups decided since the last call: (first ticket, last ticket, the first's sequence or
        None where the group failed, the error)."""
    def read(
        self, from_sequence: int, bytes_max: int
    ) -> tuple[list[tuple[int, _RecordFields, bytes]], int]:
        """Durable records as (sequence, fields, payload), and the sequence to go on from."""
    def truncate_before(self, sequence: int) -> None: ...
    def durable_sequence(self) -> int: ...
    def stats(self) -> dict[str, Any]: ...
    def close(self) -> None:
        """Commit what is queued, then take no more. Idempotent."""

# --- shard (S) --------------------------------------------------------------------------------

class Receipt:
    """What one request held. Immutable."""

    ticket: int
    points_received: int
    rejected: list[tuple[str, int]]
    """(reason, count), only reasons that occurred; their sum is the points refused."""
    first_error: str | None
    samples: int
    """Good float samples. `histograms` and `exemplars` likewise."""
    histograms: int
    exemplars: int
    def numbered(self, ticket: int) -> Receipt:
        """The same, with a ticket that the caller gives out."""

# --- a log that others keep (docs/formats/kafka.md) -------------------------------------------

class Routing:
    """How a topic's partitions share the series. Raises: TenantFault (a number out of range)."""

    number: int
    def __init__(
        self,
        partitions: int,
        spread: list[tuple[str, str, int]] = ...,
        record_bytes_max: int = 900_000,
    ) -> None: ...
    def partition(self, tenant: str, metric: str) -> int: ...

class RequestHeader:
    """A request's header, for a journal that keeps the request as it came. Opaque."""

def slice_request(
    shard: Shard,
    body: bytes,
    tenant: str,
    format: int,
    encoding: int,
    received_ms: int,
    routing: Routing,
) -> tuple[RequestHeader, Receipt, list[tuple[int, bytes]]]:
    """Decode, validate, cut: the header, the receipt (its ticket is 0) and the records, (partition,
    value) each. Queues nothing. Raises: as `Shard.receive`."""

def slice_again(
    shard: Shard, fields: _RecordFields, body: bytes, routing: Routing
) -> list[tuple[int, bytes]]:
    """The same records of a request that was kept as it came. Raises: Corruption."""

def open_feed(shard: Shard, next_sequence: int) -> None:
    """Instead of `Shard.open_journal`: records come by `feed_records`, from `next_sequence` on."""

def feed_records(
    shard: Shard,
    partition: int,
    records: list[tuple[int, bytes]],
    wait_ms: int,
    policy_version: int | None = None,
) -> tuple[int, str | None]:
    """Hand over records (offset, value), ascending, to be judged by `policy_version` (None: by
    what each says): how many of them need not come again, and why the next one is poison. Waits
    at most `wait_ms` for room. One thread's."""

def skip_records(shard: Shard, next_sequence: int) -> None:
    """What was not fed before `next_sequence` never will be: it is counted as lost."""

def note_durable(shard: Shard, next_sequence: int) -> None:
    """Records before `next_sequence` are durable: queries wait for them."""

def encode_record(fields: _RecordFields, payload: bytes) -> bytes: ...
def decode_record(value: bytes) -> tuple[_RecordFields, bytes]:
    """What `encode_record` made. Raises: Corruption."""

def is_quick(body: bytes, format: int, encoding: int) -> bool:
    """May `Shard.receive` take this body on a thread that others wait for? By its length, the
    declared one where there is one."""

def count_taken(disk: Disk, path: str, tier: str, taken: str) -> int:
    """Series of a warm or cold file that orders (JSON [{matchers, before_ms}]) name. Raises:
    Corruption, BackendUnavailable, TenantFault (a regular expression)."""

class WorkLane:
    """A thread that does one piece of work after the other, with the priority of whoever made it;
    `kernels/src/priority.rs`. Raises: BackendUnavailable."""

    def __init__(self, name: str) -> None: ...
    def take_over(self) -> None:
        """What the calling thread has rolled up, merged or made cold is done on this lane from now
        on, not on a thread that merely has a lower "nice"."""

def merge_warm(disk: Disk, request: str) -> str:
    """JSON {tenant, window_ms, path, parts: [{path, owned_ms: [[from, until]], taken: [{matchers,
    before_ms}], tier: "warm" or "cold", replaces: false}]}: one warm file of the windows that
    several own, without what was taken, durable and read back whole. A part that replaces stands,
    of each of its series, for all from its first to its last window. JSON {path, bytes, crc32,
    series, windows, points, ..., replaced: {windows, points}}. Blocks for seconds. Raises:
    Corruption, BackendUnavailable."""

class Shard:
    """One shard: journal, registry, buffer, blocks. `receive`, the acks and the figures may be
    called from any thread; `advance` and `freeze` belong to one thread, the processor's.

    Life: `open_journal` -> (requests are taken) -> `load_state`s -> `publish` -> `loaded` ->
    `advance`s, with `freeze` between two of them -> `close`.
    """

    def __init__(self, disk: Disk, options: dict[str, Any]) -> None:
        """Options: kernels/src/shard/owner.rs. `hash_seed` must be unpredictable to clients."""
    def open_journal(self, next_sequence: int, fence: int) -> str:
        """JSON: next_sequence, quarantined_records, quarantined_bytes, undecided_records,
        torn_bytes."""
    def load_state(self, path: str, bytes: int, crc32: int) -> None:
        """Raises: Corruption."""
    def publish(self, publication: str) -> None:
        """Show readers a committed manifest: {"blocks", "blocks_removed", "sealed",
        "movements"}, all at once."""
    def watch_coverage(self, tenant: str, until_ms: int) -> None:
        """Points at or before `until_ms` mark their hours dirty from now on. The watermark only
        rises. Told before points are pinned for windows up to there; waits for a slice of
        records."""
    def leave_coverage(self, tenant: str) -> None:
        """Nothing of the tenant is rolled up any more."""
    def forget_dirty(self, tenant: str, from_ms: int, until_ms: int, sequence: int) -> None:
        """Hours within (from_ms, until_ms] that no record from `sequence` on marked are clean."""
    def mark_hour(self, tenant: str, time_ms: int) -> None:
        """The hour of a window that ends then is to be rolled again, as if the newest record had
        brought a point of it."""
    def coverage(self, tenant: str) -> tuple[list[int], int]:
        """(starts of the dirty hours, ascending; the first record that this does not know)."""
    def set_age_days(self, age_days: dict[str, int]) -> None:
        """Days (1-255) that a tenant's points may lie behind the time at which they come: older
        ones are refused as `too_old`. Takes the place of what was set before."""
    def roll(self, request: str) -> str:
        """JSON {tenant, from_ms, until_ms, window_ms, path, past_damage}: writes the warm file of
        the windows with an end in (from_ms, until_ms], durably, and reads it back whole. JSON
        {"file": {path, bytes, crc32, series, windows, points}, "series", "windows", "points" (as
        counted on the way in), "through_sequence", "orders" (to delete, followed up to this
        number), "lost_points", "lost_pages" (damaged, and passed over with `past_damage`)}. Blocks
        for seconds. Raises: Corruption, Cancelled (`cancel_merges`)."""
    def newest_order(self) -> int:
        """The highest number of an order to delete that was followed."""
    def buffered_range_ms(self) -> tuple[int, int] | None:
        """First and last time of the points that no block holds yet."""
    def block_tenants(self) -> dict[str, list[str]]:
        """Whose points each block holds, by its path."""
    def explosions(self) -> str:
        """JSON: [{"explosion", "ticket"}] of those that nobody is named for; waits for a slice of
        records."""
    def named_explosions(self) -> list[tuple[int, int]]:
        """(number, received last) of explosions that have a writer."""
    def name_writer(self, explosion: int, writer: str) -> bool:
        """`writer` is JSON of at most 1 KiB. False where the explosion is forgotten."""
    def loaded(self) -> None:
        """Registry and blocks are whole; queries waited for it."""
    def whatif(self, request: str) -> str:
        """Judge recorded hours by another policy: request and answer as the evaluate protocol's
        `whatif`, in JSON. Blocks for seconds. Raises: TenantFault (the table), Corruption."""
    def set_policies(self, policies: str, current: int, refusing: str) -> None:
        """The versions that records name, the one for new records; `refusing` says why
        no request is taken, or is empty."""
    def set_tables(self, tables: list[str]) -> None:
        """The compiled policies that `set_policies` may name (docs/formats/policy.md), in the
        place of those before. Raises: Corruption."""
    def governance(self) -> str:
        """JSON as of the last record applied: `version` in force, `meters` = [tenant, the budget's
        place, active series, new ones in this journal hour], `tallies` by tenant and budget."""
    def receive(
        self, body: bytes, tenant: str, format: int, encoding: int, received_ms: int
    ) -> Receipt:
        """Decode, validate and hand to the committer; never waits for the disk.

        Durable only when `drain_acks` has passed the receipt's ticket.
        Raises: TenantFault (400/413, nothing was journaled), Overloaded.
        """
    def ack_fd(self) -> int:
        """An eventfd, readable once per committed or failed group."""
    def drain_acks(self) -> tuple[int, list[tuple[int, int, str]]]:
        """(decided, failures): every ticket < `decided` is durable, except those in
        `failures` = [(first, last, error)], both ends inclusive; each failure is told once.
        Resets the eventfd."""
    def advance(self, wait_ms: int) -> tuple[str, int, int, int]:
        """Apply durable records as they come for `wait_ms`, or until a slice of work is done:
        ("applied" | "idle" | "full", points buffered, journal bytes applied since the last
        freeze, next sequence). "full" waits for a seal."""
    def interrupt(self) -> None:
        """Make a waiting `advance` return."""
    def freeze(self, snapshot: bool) -> bool:
        """Swap the buffer out to be sealed; false where there is nothing new, or one waits."""
    def write_seal(self, paths: str, fence: int) -> str:
        """Write the frozen buffer, what was refused, hours that closed, and the state, durably; a
        SealReport in JSON. `paths` is a JSON object of `block`, `letters`, `hours`, `state`; the
        first three are made only where there is something to write."""
    def merge(self, request: str) -> str:
        """Write the merger of blocks, durably; a MergeReport in JSON. Raises: Cancelled."""
    def count_ordered(self, tenant: str, matchers: str) -> int:
        """Series that an order would take; `matchers` in JSON. Raises: TenantFault 400."""

    def knows_tenant(self, tenant: str) -> bool: ...
    def erasing(self) -> tuple[list[tuple[int, int]], list[str]]:
        """Pending orders with the series that they take; blocks that may hold their points."""

    def cancel_merges(self) -> None:
        """For good: the shard is about to close."""
    def truncate_journal(self, sequence: int) -> None:
        """Forget records before `sequence`, once a durable manifest covers them."""
    def wait_visible(self, wait_ms: int) -> int:
        """Wait until what is durable now can be seen; returns the records still missing."""
    def sequences(self) -> tuple[int, int]:
        """(first sequence that is not durable, first that queries do not see). At once."""
    def points(
        self, tenant: str, from_ms: int, until_ms: int
    ) -> tuple[LabelTable, NDArray[np.uint64], NDArray[np.int64], NDArray[np.float64]]:
        """Every float of [from_ms, until_ms) in memory at once, for oracles: (labels, offsets,
        times, values); series `i` owns offsets[i]..offsets[i + 1]."""
    def histograms(self, tenant: str) -> tuple[LabelTable, list[tuple[int, int, bytes]]]:
        """Every native histogram that is sealed, for oracles: (labels, [(series, time, canonical
        bytes)])."""
    def ledger(self, raw_scan: bool) -> str:
        """A Statement (ledger/statement.py) in JSON; `raw_scan` reads every row on disk."""
    def stats(self) -> dict[str, Any]:
        """Figures for /metrics, status and readiness. Cheap; never waits for the writer."""
    def close(self) -> None:
        """Take no more requests; what was appended is decided first."""

def read_letters(disk: Disk, path: str, query: str) -> str:
    """Dead letters of one file that match {"tenant", "reason" (or null), "since_ms", "until_ms" (of
    receipt), "skip", "limit"}: JSON {"letters", "matched", "damaged_chunks"}. Blocks. Raises:
    Corruption, BackendUnavailable."""

def read_seal(disk: Disk, path: str) -> tuple[str, int] | None:
    """(SealReport in JSON, fence) out of a state file and its block, both read through; None of
    one that does not tell. Blocks. Raises: Corruption, BackendUnavailable."""

# --- evaluate (E) -----------------------------------------------------------------------------

class MemoryShard:
    """A shard in memory that an EvaluateServer can serve: for tests of what stands above it."""

    def __init__(
        self,
        series: Sequence[
            tuple[
                dict[str, str],
                Sequence[int] | NDArray[np.int64],
                Sequence[float] | NDArray[np.float64],
            ]
        ],
        metadata: Sequence[tuple[str, int, str, str]] = (),
    ) -> None:
        """Series as (labels, times in ms, ascending, values); metadata as (name, type, help, unit).
        All belong to the tenant `default`."""

class EvaluateServer:
    """Serves the evaluate protocol of one shard on a Unix socket, in threads of its own."""

    def __init__(
        self,
        shard: Shard | MemoryShard,
        socket_path: str | PathLike[str],
        options: dict[str, int] | None = None,
    ) -> None:
        """Options: query_threads, query_bytes_max (all queries together), series_max, points_max,
        cost_max, bytes_max (each per query), visibility_wait_max_ms, timeout_max_ms,
        connections_max."""
    def start(self) -> None: ...
    def stop(self) -> None:
        """Cancels what runs and waits for it, at most 5 s."""
    def stats(self) -> dict[str, int]:
        """{"connections", "query_bytes"} right now."""

class HyperLogLog:
    """Distinct values in 2^precision registers; kernels/src/sketch/hll.rs."""

    def __init__(self, precision: int) -> None:
        """Raises: ValueError (not from 4 to 16)."""
    @staticmethod
    def decode(bytes: bytes) -> HyperLogLog:
        """Raises: Corruption."""
    def encode(self) -> bytes: ...
    def add(self, values: list[bytes]) -> None: ...
    def merge(self, other: HyperLogLog) -> bool:
        """Become the sketch of the union; False where the precisions differ."""
    def estimate(self) -> float: ...

class ColdFile:
    """One cold object, open for reading; docs/formats/cold.md. Blocking, without the GIL."""

    def __init__(self, disk: Disk, path: str) -> None:
        """Raises: Corruption; BackendUnavailable."""
    def facts(self) -> str:
        """JSON: tenant, window_ms, from_ms, until_ms, number, series, windows, points, content."""
    def memory_bytes(self) -> int: ...
    def verify(self) -> None:
        """Read all of it back. Raises: Corruption where it is not what was written."""
    def select(self, matchers: str, series_max: int) -> NDArray[np.uint32]:
        """Numbers of the matching series, ascending; `matchers` is JSON of name, op, value.
        Raises: TenantFault (a bad expression, more than `series_max`)."""
    def labels(self, series: NDArray[np.uint32]) -> LabelTable: ...
    def read(
        self, series: NDArray[np.uint32], from_ms: int, until_ms: int
    ) -> dict[str, NDArray[Any]]:
        """Windows of these series, ascending, with an end in [from_ms, until_ms), in columns."""

def write_cold(disk: Disk, unit: str, labels: LabelTable, columns: dict[str, NDArray[Any]]) -> str:
    """Write the objects of a unit; JSON of their reports. `columns` as `ColdFile.read` gives them.
    Durable when it returns. Raises: BackendUnavailable, also for windows outside of the unit."""

def make_cold(disk: Disk, source: str, unit: str) -> str:
    """A warm file's windows as the objects of a unit, read back; JSON of reports."""

def erase_cold(disk: Disk, unit: str, parts: str, taken: str) -> str:
    """What orders (JSON [{matchers, before_ms}]) leave of a unit's objects, as the unit's objects
    of that order (`erased` of the unit); JSON of reports, none where nothing is left."""

def merge_cold(disk: Disk, unit: str, parts: str) -> str:
    """Write the objects of `parts` (JSON of path, owned_ms) as one unit; JSON of reports."""

class CancelToken:
    def __init__(self) -> None: ...
    def cancel(self) -> None:
        """Any thread; the evaluation ends soon with Cancelled."""
    def cancelled(self) -> bool: ...

class Columns:
    """Step columns of S series or groups over T steps; those without a value are left out.
    Columns own their memory and are writable."""

    labels: LabelTable
    values: NDArray[np.float64]
    """[S, T]; 0 where absent."""
    present: NDArray[np.bool_]
    """[S, T]."""
    stats: dict[str, Any]
    """series_selected, points_scanned, evaluate_us, lag_records."""
    warnings: list[str]

class States:
    """What a tier holds of S series' steps, unfinished (docs/formats/evaluate.md, states)."""

    def __len__(self) -> int: ...
    @property
    def labels(self) -> LabelTable: ...
    @property
    def exactness(self) -> str:
        """exact, bounded or approximate."""
    @property
    def stats(self) -> dict[str, Any]: ...
    @property
    def warnings(self) -> list[str]: ...

def merge_states(
    plan: dict[str, Any],
    parts: list[States],
    *,
    timeout_s: float | None = None,
    cancel: CancelToken | None = None,
) -> Columns:
    """The plan's answer from the states of its tiers, the oldest first: merged by label sets,
    finished, aggregated. `stats` is empty, `warnings` are the parts'. Raises: TenantFault."""

class RawPoints:
    """Series i owns `[offsets[i]:offsets[i + 1]]` of times and values."""

    labels: LabelTable
    offsets: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    values: NDArray[np.float64]
    stats: dict[str, Any]
    warnings: list[str]

class ShardClient:
    """The read side's end of the evaluate protocol. Blocking, thread-safe, pooled connections.

    Requests are docs/formats/evaluate.md's, without `op`; floats may be NaN or infinite, scalar
    arguments may be arrays. Raises: TenantFault (a limit, a bad plan or matcher), Overloaded,
    BackendUnavailable (no shard there), DeadlineExceeded, Cancelled. A `warnings` list gets the
    answer's warnings appended (that the shard lags).
    """

    def __init__(self, path: str | PathLike[str]) -> None: ...
    def evaluate(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> Columns: ...
    def states(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> States:
        """The plan's states over points later than its `from_ms`. No aggregation; functions
        whose states merge."""
    def points(self, request: dict[str, Any], cancel: CancelToken | None = None) -> RawPoints:
        """Raw points in (start_ms, end_ms], without stale markers unless `keep_stale`."""
    def label_names(
        self,
        request: dict[str, Any],
        cancel: CancelToken | None = None,
        warnings: list[str] | None = None,
    ) -> list[str]: ...
    def label_values(
        self,
        request: dict[str, Any],
        cancel: CancelToken | None = None,
        warnings: list[str] | None = None,
    ) -> list[str]: ...
    def series(
        self,
        request: dict[str, Any],
        cancel: CancelToken | None = None,
        warnings: list[str] | None = None,
    ) -> LabelTable: ...
    def metadata(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]:
        """{name: [{"type", "help", "unit"}]}, as Prometheus' API words it."""
    def stats(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]: ...
    def cardinality(
        self,
        request: dict[str, Any],
        cancel: CancelToken | None = None,
        warnings: list[str] | None = None,
    ) -> dict[str, Any]: ...
    def ledger(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]: ...
    def usage(self, request: dict[str, Any], cancel: CancelToken | None = None) -> dict[str, Any]:
        """What each metric of every tenant takes in the blocks: bytes, points, series."""
    def usage_tags(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]:
        """What a tenant's tags take, or the values of one."""
    def coverage(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]:
        """Of `tenant`: {"dirty_hours", "applied", "deletions" (pending)}; ask before the catalog is
        looked at."""
    def whatif(self, request: dict[str, Any], cancel: CancelToken | None = None) -> dict[str, Any]:
        """Recorded hours judged by another policy. Raises also: Overloaded (one at a time)."""

def range_function(
    function: str,
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    eval_times_ms: NDArray[np.int64],
    range_ms: int,
    args: Sequence[float | NDArray[np.float64]],
    *,
    end_times_ms: NDArray[np.int64] | None = None,
    extension: str | None = None,
    lookback_ms: int = 300_000,
    timeout_s: float | None = None,
    cancel: CancelToken | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A range function over a subquery's columns: [S, N] points -> [S, T], windows (t - range, t].

    Arrays are C-contiguous. `end_times_ms` says where the windows end if not at the evaluation
    times (offset, @). An argument is one float or one a step. `extension`: anchored | smoothed.
    Function names are PromQL's, and "last" and "timestamp" for the instant selector.
    Raises: DeadlineExceeded, Cancelled.
    """

def aggregate_columns(
    op: str,
    groups: NDArray[np.uint32],
    group_count: int,
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """sum, avg, count, min, max, group, stddev or stdvar of [S, T] columns -> [G, T]; row i is of
    group `groups[i]`. Compensated, as fused aggregations are."""

# --- labels and JSON (C) ----------------------------------------------------------------------

class LabelTable:
    """Label sets of S series with local symbols. Immutable: methods answer new tables.

    Absent and empty labels are the same thing. Ids and groups are numbered in order of first
    appearance. An `index` is a 1-d int64, uint32, uint64 or (where it selects) bool array.
    """

    def __len__(self) -> int: ...
    @staticmethod
    def from_lists(series: list[dict[str, str]]) -> LabelTable: ...
    @staticmethod
    def concat(tables: list[LabelTable]) -> LabelTable: ...
    @staticmethod
    def from_bytes(data: bytes) -> LabelTable:
        """docs/formats/labels.md. Raises: Corruption."""
    def to_bytes(self) -> bytes: ...
    def to_list(self) -> list[dict[str, str]]: ...
    def get(self, i: int) -> dict[str, str]:
        """Labels of one series. Raises: IndexError."""
    def names(self) -> list[str]:
        """All label names in use, ascending."""
    def memory_bytes(self) -> int: ...
    def take(self, index: NDArray[Any]) -> LabelTable: ...
    def group(self, names: list[str], without: bool) -> tuple[NDArray[np.uint32], LabelTable]:
        """(group of each series [S], the groups' labels). `without` drops `__name__` as well."""
    def match_with(
        self, other: LabelTable, names: list[str], on: bool
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], int]:
        """Signatures of both sides in one numbering: (ids here, ids there, how many).
        `on=False` ignores `names` and `__name__`."""
    def drop(self, names: list[str]) -> LabelTable: ...
    def keep(self, names: list[str]) -> LabelTable: ...
    def set_label(self, name: str, value: str) -> LabelTable: ...
    def with_values(self, name: str, values: list[str]) -> LabelTable: ...
    def values_of(self, name: str) -> list[str]: ...
    def codes_of(self, name: str) -> tuple[NDArray[np.uint32], list[str]]:
        """(code of each series [S], the value of each code)."""
    def replace(self, target: str, replacement: str, source: str, regex: str) -> LabelTable:
        """label_replace. Raises: TenantFault 400 (not a regular expression)."""
    def join(self, target: str, separator: str, sources: list[str]) -> LabelTable:
        """label_join."""
    def copy_labels(self, other: LabelTable, index: NDArray[Any], names: list[str]) -> LabelTable:
        """Series i takes `names` from series index[i] of `other`; absent there, dropped here."""
    def first_duplicate(self) -> int | None:
        """The first series whose label set came before."""
    def sort_order(self) -> NDArray[np.int64]:
        """Positions of the series in the order of Prometheus' labels.Compare."""
    def dedup_ids(self) -> NDArray[np.uint32]:
        """Numbers of the whole label sets [S]."""

def write_matrix(
    labels: LabelTable,
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    start_ms: int,
    step_ms: int,
    timeout_s: float | None = None,
    cancel: CancelToken | None = None,
) -> bytes:
    """The `result` array of a matrix in Prometheus' JSON; series without a point are left out.
    Raises: DeadlineExceeded, Cancelled."""

def write_vector(labels: LabelTable, values: NDArray[np.float64], time_ms: int) -> bytes:
    """The `result` array of a vector in Prometheus' JSON."""

def write_points(
    labels: LabelTable,
    order: NDArray[np.int64],
    offsets: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
) -> bytes:
    """A matrix of times of each series' own: series `i` owns points `offsets[i]..offsets[i + 1]`;
    in the order of `order`, none without a point."""

def write_series(labels: LabelTable) -> bytes:
    """The label sets as a JSON array of objects."""

def format_float(value: float) -> str:
    """A float as Prometheus prints it: Go's FormatFloat(value, 'f', -1, 64). Keeps the GIL."""

def check_regex(pattern: str) -> None:
    """Raises: TenantFault 400 (Go's syntax; not a regular expression, or too large)."""

# --- wire decoders (kernels/src/wire) ---------------------------------------------------------

def decode_summary(body: bytes, format: int, encoding: int, received_ms: int) -> dict[str, Any]:
    """A decoded request, for tests and tools; on the write path a batch never leaves Rust.

    `series` = labels as dicts, `types` likewise; `series_index`, `times_ms`, `values` are arrays
    [P]; `histograms` = [(series index, time, canonical bytes)]; `metadata` = [(name, type, help,
    unit)]; `received`, `rejected` {reason: count}, `exemplars`, `first_error`.
    Raises: TenantFault (400 not this format, 413 past a limit).
    """

# --- export and import (kernels/src/exchange) ---------------------------------------------------

def remote_write_bodies(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    points_max: int,
    bytes_max: int,
) -> list[tuple[bytes, int]]:
    """The points as remote write 1.0 bodies in snappy, each with its points: cut behind the point
    that reaches a limit (bytes as they are before compression)."""

def read_openmetrics(
    text: bytes, first_line: int, points_max: int, bytes_max: int
) -> tuple[list[tuple[bytes, int]], int, int, bool]:
    """Whole lines of OpenMetrics, each sample with its time, as such bodies, types and help among
    them: (bodies, points, lines, was `# EOF` among them). Raises: TenantFault 400 with the line."""

def write_openmetrics(
    labels: LabelTable,
    offsets: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
) -> tuple[bytes, int]:
    """OpenMetrics lines of the points, and how many; stale markers are left out."""

def read_remote_answer(
    answer: bytes, points_max: int, bytes_max: int
) -> tuple[list[tuple[bytes, int]], int, int]:
    """A Prometheus' answer to remote read (samples) as such bodies: (bodies, points, native
    histograms left out). Raises: TenantFault 400."""

def pack_snappy(data: bytes) -> bytes:
    """snappy's block format."""

def pack_bytes(data: bytes) -> bytes:
    """zstd."""

def unpack_bytes(data: bytes, bytes: int) -> bytes:
    """Exactly so many bytes. Raises: Corruption."""

# --- blocks (kernels/src/shard/block*.rs), for tests and tools ---------------------------------

def write_block(
    disk: Disk,
    path: str,
    keys: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    dense: bool = False,
    page_points_max: int = 8192,
) -> dict[str, Any]:
    """A block of series i = rows offsets[i]:offsets[i + 1]; its path, bytes, crc32 and counts.

    `keys` [S, 3] = (tenant, metric, row), ascending; a series' times ascend strictly. The file is
    synced, its directory is not. Raises: BackendUnavailable (out of order, disk).
    """

def read_block(
    disk: Disk,
    path: str,
    keys: NDArray[np.uint32] | None = None,
    from_ms: int = ...,
    until_ms: int = ...,
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(keys, offsets, times, values) as `write_block` takes them: everything, or of `keys` what
    lies in [from_ms, until_ms). Raises: Corruption."""

def check_block(disk: Disk, path: str) -> str:
    """Reads all pages of a block, one at a time: JSON {pages, damaged_pages, damaged_points, words
    (of the first damaged one)}. Raises: Corruption (its directory), BackendUnavailable."""

def warm_usage(disk: Disk, path: str) -> list[tuple[str, int, int, int]]:
    """(metric, data bytes, index bytes, series) of a warm file, ascending. Raises: Corruption."""

def merge_blocks(
    disk: Disk,
    inputs: list[str],
    cuts_ms: list[int],
    paths: list[str],
    dense: bool = True,
    page_points_max: int = 8192,
) -> tuple[list[dict[str, Any]], int]:
    """Merge blocks, oldest first; paths[i] takes [cuts_ms[i - 1], cuts_ms[i]). Returns the blocks
    written (none for an empty range) and how many points were superseded."""

# --- warm files (docs/formats/warm.md) ---------------------------------------------------------

def write_warm_file(
    disk: Disk,
    path: str,
    tenant: str,
    window_ms: int,
    labels: LabelTable,
    kinds: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    times_ms: NDArray[np.int64],
    values: NDArray[np.float64],
) -> str:
    """Windows of the points of series i = offsets[i]:offsets[i + 1], in a new file that is synced
    (its directory is not): JSON {path, bytes, crc32, tenant, window_ms, digits, series, windows,
    points, folded, min_end_ms, max_end_ms}. `kinds`: 1 counter, 2 gauge, 3 unknown; no set twice.

    Raises: TenantFault (columns that do not fit), BackendUnavailable (disk, labels twice).
    """

def write_warm_windows(
    disk: Disk,
    path: str,
    tenant: str,
    window_ms: int,
    labels: LabelTable,
    columns: dict[str, NDArray[Any]],
    marks: NDArray[np.uint8],
    taken: list[str],
) -> str:
    """A new file of windows as an export has them (`TierReader.windows`), synced and read back:
    JSON as `write_warm_file`'s. Series in any order, labels twice only of two kinds.

    Raises: TenantFault (windows that no points come to), BackendUnavailable, ValueError."""

def verify_warm_file(disk: Disk, path: str) -> str:
    """Compares every checksum, decodes every page and counts anew; JSON as `write_warm_file`'s.
    Raises: Corruption, BackendUnavailable."""

def strip_warm_file(disk: Disk, source: str, path: str, request: str) -> str:
    """Write `source` to `path`, durable with its directory entry, and read it back: `request` =
    JSON {rules: [{matchers: [{name, op, value}], labels: [name], keep: [name] or null, digits}],
    before: path or null}. Folded counters grow from where their members' ended in `before`.
    Of the rules that name a series the first with `labels` (they go) or `keep` (all others go but
    the metric's name, le and quantile) takes labels; series that become one are folded
    (docs/formats/warm.md). The first with `digits` rounds, gauges that were not rounded before, to
    so many significant digits. JSON {file, series_before, points_before, stripped}.

    Raises: TenantFault (a rule that takes __name__, le or quantile, over 12 digits), Corruption."""

# --- tiers (kernels/src/downsample) -----------------------------------------------------------

class TierReader:
    """Plans over files of windows, warm and cold. Blocking, thread-safe; keeps files open, at most
    `files_max` that hold at most `files_bytes_max` in memory. Threads that it starts have the
    caller's priority.

    A file is (path below the disk's root, tier, the ranges (from_ms, until_ms] of window ends for
    which it speaks). Options, all of them: query_threads, query_bytes_max, files_max,
    files_bytes_max, series_max, points_max (of windows), bytes_max, cost_max. Raises as
    ShardClient does, and Corruption.
    """

    def __init__(self, disk: Disk, options: dict[str, int]) -> None: ...
    def evaluate(
        self,
        plan: dict[str, Any],
        files: list[tuple[str, str, list[tuple[int, int]]]],
        points: list[tuple[RawPoints, list[tuple[int, int]]]] = ...,
        exact_only: bool = False,
        cancel: CancelToken | None = None,
        hidden: dict[str, str] = ...,
    ) -> Columns | None:
        """As ShardClient.evaluate, over files and beside them points. `hidden`: by path what orders
        to delete take of a file, JSON [{matchers, before_ms}]. Stats: series_selected,
        points_estimated, cost, points_scanned (windows), evaluate_us, bytes_read, files_read,
        digits (0: lossless), exactness ("exact", "bounded", "approximate"). None where
        `exact_only` and it is not."""
    def series(
        self,
        request: dict[str, Any],
        files: list[tuple[str, str, list[tuple[int, int]]]],
        cancel: CancelToken | None = None,
        hidden: dict[str, str] = ...,
    ) -> LabelTable: ...
    def label_names(
        self,
        request: dict[str, Any],
        files: list[tuple[str, str, list[tuple[int, int]]]],
        cancel: CancelToken | None = None,
        hidden: dict[str, str] = ...,
    ) -> list[str]: ...
    def label_values(
        self,
        request: dict[str, Any],
        files: list[tuple[str, str, list[tuple[int, int]]]],
        cancel: CancelToken | None = None,
        hidden: dict[str, str] = ...,
    ) -> list[str]: ...
    def damaged(self) -> list[tuple[str, str]]:
        """(path, what was found last) of damaged files that were met, those gone among them."""
    def windows(
        self,
        request: dict[str, Any],
        files: list[tuple[str, str, list[tuple[int, int]]]],
        cancel: CancelToken | None = None,
        hidden: dict[str, str] = ...,
    ) -> tuple[LabelTable, dict[str, NDArray[Any]], NDArray[np.uint8], list[str]]:
        """Windows as they stand with an end in (start_ms, end_ms], of files of one tier: labels,
        columns (offsets, kinds, end_ms, count, first_ms, first, last_ms, last, ends_stale, dropped,
        sum, minimum, maximum), marks (1: a fold, and the digits that are left twice), names of
        labels that series lost. `limits` needs series_max and points_max (windows). Raises:
        TenantFault 422."""
    def keep_only(self, paths: set[str]) -> None:
        """Close kept files that are not among these."""
    def stats(self) -> dict[str, int]:
        """{"files", "files_bytes", "query_bytes"} right now."""

def stitch_columns(
    segments: list[tuple[LabelTable, NDArray[np.float64], NDArray[np.bool_], int]],
    step_count: int,
) -> tuple[LabelTable, NDArray[np.float64], NDArray[np.bool_]]:
    """Columns of disjoint steps, each with its first step, as one: rows of equal label sets are
    joined, in order of first appearance."""
