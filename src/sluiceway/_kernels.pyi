"""Contracts of the Rust kernels. One section a kernel family; `kernels.py` is the door to them.

Unless said otherwise a call drops the GIL, may raise the tree of `sluiceway.errors`, and borrows
its arguments for the call only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str

def arm_mutant(name: str | None = None) -> bool:
    """Arm one durability mutant (or none). False where this build has no mutants."""

def mutant_on(name: str) -> bool: ...
def gil_reacquisitions() -> int:
    """How often a kernel of this process has taken the GIL back."""

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

class Shard:
    """One shard: journal, registry, buffer, blocks. Single writer; any thread may call."""

    def __init__(self, disk: Disk, options: dict[str, Any]) -> None: ...
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
        `failures` = [(first, last, error)], both ends inclusive; each failure is told once."""
    def advance(self, now_ms: int, wait_ms: int) -> tuple[str, Any]:
        """Apply durable records until something needs Python: (event, detail)."""
    def stats(self) -> dict[str, Any]:
        """Figures for /metrics, status and readiness. Cheap; never waits for the writer."""

# --- evaluate (E) -----------------------------------------------------------------------------

class EvaluateServer:
    """Serves the evaluate protocol of one shard on a Unix socket, in threads of its own."""

    def __init__(self, shard: Shard, socket_path: str, options: dict[str, Any]) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...

class CancelToken:
    def __init__(self) -> None: ...
    def cancel(self) -> None:
        """Any thread; the evaluation ends soon with Cancelled."""
    def cancelled(self) -> bool: ...

class Columns:
    labels: LabelTable
    values: NDArray[np.float64]
    present: NDArray[np.bool_]
    stats: dict[str, Any]
    warnings: list[str]

class ShardClient:
    """The read side's end of the evaluate protocol. Blocking, thread-safe, pooled connections."""

    def __init__(self, path: str) -> None: ...
    def evaluate(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> Columns: ...
    def label_names(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> list[str]: ...
    def label_values(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> list[str]: ...
    def series(self, request: dict[str, Any], cancel: CancelToken | None = None) -> LabelTable: ...
    def metadata(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]: ...
    def stats(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]: ...

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
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A range function over a subquery's columns: [S, N] points -> [S, T], windows (t - range, t].

    Arrays are C-contiguous. `end_times_ms` says where the windows end if not at the evaluation
    times (offset, @). An argument is one float or one a step. `extension`: anchored | smoothed.
    Function names are PromQL's, and "last" and "timestamp" for the instant selector.
    """

# --- labels and JSON (C) ----------------------------------------------------------------------

class LabelTable:
    """Label sets of S series with local symbols. Immutable."""

    def __len__(self) -> int: ...
    @staticmethod
    def from_lists(series: list[dict[str, str]]) -> LabelTable: ...
    @staticmethod
    def concat(tables: list[LabelTable]) -> LabelTable: ...
    @staticmethod
    def from_bytes(data: bytes) -> LabelTable: ...
    def to_bytes(self) -> bytes: ...
    def to_list(self) -> list[dict[str, str]]: ...
    def take(self, index: NDArray[np.integer[Any]]) -> LabelTable: ...
    def group(self, names: list[str], without: bool) -> tuple[NDArray[np.uint32], LabelTable]: ...
    def match_with(
        self, other: LabelTable, names: list[str], on: bool
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], int]: ...
    def drop(self, names: list[str]) -> LabelTable: ...
    def keep(self, names: list[str]) -> LabelTable: ...
    def set_label(self, name: str, value: str) -> LabelTable: ...
    def with_values(self, name: str, values: list[str]) -> LabelTable: ...
    def values_of(self, name: str) -> list[str]: ...
    def codes_of(self, name: str) -> tuple[NDArray[np.uint32], list[str]]: ...
    def replace(self, dst: str, replacement: str, src: str, regex: str) -> LabelTable: ...
    def join(self, dst: str, sep: str, srcs: list[str]) -> LabelTable: ...
    def copy_labels(
        self, other: LabelTable, index_into_other: NDArray[np.integer[Any]], names: list[str]
    ) -> LabelTable: ...
    def first_duplicate(self) -> int | None: ...
    def sort_order(self) -> NDArray[np.int64]: ...
    def dedup_ids(self) -> NDArray[np.uint32]: ...

def write_matrix(
    labels: LabelTable,
    values: NDArray[np.float64],
    present: NDArray[np.bool_],
    start_ms: int,
    step_ms: int,
) -> bytes:
    """The `result` array of a matrix in Prometheus' JSON; series without a point are left out."""

def write_vector(labels: LabelTable, values: NDArray[np.float64], time_ms: int) -> bytes: ...
def write_series(labels: LabelTable) -> bytes: ...
