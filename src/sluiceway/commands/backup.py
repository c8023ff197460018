"""`sluiceway backup` and `sluiceway restore`.

Invariant: a backup of a running server asks it to seal first, so that what was acked before is in
it; of a directory that no server has open, this command holds the lock.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sluiceway.commands.options import HERE, Authority, Key, Text

if TYPE_CHECKING:
    from sluiceway.objects.interface import ObjectStore
    from sluiceway.services.backup.index import File, Index

Number = Annotated[
    Optional[int],  # noqa: UP045  (typer reads the annotation when it runs)
    typer.Option(help="Which backup; the newest."),
]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--store", help="NAME=VALUE of the object store, as endpoint=http://host:9000."),
]
DataDir = Annotated[Path, typer.Option(help="Data directory of the server.")]
FLUSH_S = 600.0


def backup(
    to: Annotated[str, typer.Option(help="Directory, file:// or s3://bucket/prefix.")],
    data_dir: DataDir = Path("sluiceway-data"),
    verify: Annotated[bool, typer.Option("--verify", help="Read all that is there again.")] = False,
    store: Settings = None,
    http: Annotated[str, typer.Option("--http", "--url", help="HOST:PORT or URL.")] = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    objects: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="tiers.objects_url, or offsite_url, of the server: where rollups lie."),
    ] = None,
    objects_store: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="NAME=VALUE of that store."),
    ] = None,
) -> None:
    """Copy a data directory, also while it is served: what the last backup holds is not copied."""
    from sluiceway.clock import SystemClock
    from sluiceway.cost.call_files import add_calls
    from sluiceway.cost.calls import Calls
    from sluiceway.serve.directory import COST
    from sluiceway.services.backup.take import take_backup

    with failures():
        if not data_dir.is_dir():
            raise FileNotFoundError(f"no data directory at {data_dir}")
        if is_inside(to, data_dir):
            raise ValueError(f"{to} is in the data directory: what is lost with it is no backup")
        calls = Calls()
        target = calls.over(open_store(to, store))
        held = lock(data_dir)  # Held to the end of the command.
        flush = None if held is not None else flusher(data_dir, http, key, tls_ca)
        say, sent = say_file("stored"), None
        if objects:
            sent = calls.over(open_store(objects, objects_store))
        taken = take_backup(data_dir, target, SystemClock(), flush, verify, say, sent)
        with contextlib.suppress(OSError):  # It may not be ours to write.
            add_calls(data_dir / COST, calls)
        index = taken.index
        print(
            f"backup {index.number}: {len(index.files):,} files, {index.bytes():,} bytes; stored "
            f"{taken.files_stored:,} files, {taken.bytes_stored:,} bytes; up to record "
            f"{index.next_sequence:,}" + (" and the journal behind it" if index.journal else "")
        )
        if taken.objects_removed:
            words = "that backups which were cut off had left"
            print(f"removed {taken.objects_removed:,} objects {words}", file=sys.stderr)


def restore(
    source: Annotated[str, typer.Option("--from", help="Where the backups are.")],
    data_dir: Annotated[Optional[Path], typer.Option(help="The new directory.")] = None,  # noqa: UP045
    number: Number = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only read all of it and compare.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Only say what backups there are.")] = False,
    store: Settings = None,
) -> None:
    """Make a data directory of a backup; everything is compared with its checksums."""
    from sluiceway.clock import SystemClock
    from sluiceway.errors import Corruption
    from sluiceway.services.backup import restore as restoring

    with failures():
        objects = open_store(source, store)
        if show:
            print_backups(objects)
            return
        index = restoring.choose(objects, number)
        if verify:
            wrong = restoring.verify_objects(objects, index, say_file("read"))
            if wrong:
                raise Corruption("; ".join(wrong))
            print(f"backup {index.number} is whole: {summary(index)}")
            return
        if data_dir is None:
            raise ValueError("--data-dir names the new directory")
        left = restoring.restore(objects, index, data_dir, SystemClock(), say_file("restored"))
        for place in left:
            print(f"removed {place}: a restore that was cut off had left it", file=sys.stderr)
        print(f"backup {index.number} restored to {data_dir}: {summary(index)}")


def is_inside(place: str, data_dir: Path) -> bool:
    """Is a directory, as `--to` names it, in another one?"""
    scheme, separator, rest = place.partition("://")
    if separator and scheme != "file":
        return False
    return Path(rest if separator else place).resolve().is_relative_to(data_dir.resolve())


def print_backups(objects: "ObjectStore") -> None:
    from sluiceway.commands.tables import moment, table
    from sluiceway.errors import Corruption
    from sluiceway.services.backup.index import numbers, read_index

    rows, found = [], numbers(objects)
    if not found:
        raise FileNotFoundError("there is no backup in that place")
    for number in found:
        try:
            index = read_index(objects, number)
        except Corruption:
            rows.append((str(number), "damaged", "", "", "", ""))
            continue
        counts = (f"{len(index.files):,}", f"{index.bytes():,}", f"{index.next_sequence:,}")
        rows.append((str(number), moment(index.taken_ms), *counts, index.directory or "-"))
    titles = ("BACKUP", "TAKEN", "FILES", "BYTES", "UP TO RECORD", "DIRECTORY")
    print("\n".join(table(titles, rows)))


def summary(index: "Index") -> str:
    return f"{len(index.files):,} files, {index.bytes():,} bytes"


def open_store(place: str, settings: list[str] | None) -> "ObjectStore":
    from sluiceway.wiring_read import open_objects

    pairs = [setting.partition("=") for setting in settings or []]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("--store takes NAME=VALUE")
    return open_objects(place, {name: value for name, _, value in pairs})


def lock(data_dir: Path) -> object | None:
    """The directory's lock while what is returned lives; None where a server has it."""
    from sluiceway.errors import BackendUnavailable
    from sluiceway.serve.directory import open_disk

    try:
        return open_disk(data_dir)
    except BackendUnavailable:
        return None


def flusher(data_dir: Path, http: str, key: Text, tls_ca: Text) -> Callable[[], None]:
    """Has the server seal what is in memory: the one that has the directory open, since what
    another has sealed says nothing about what is missing here."""
    from sluiceway.commands.server import Server
    from sluiceway.serve.directory import lock_inode

    server = Server(http, key, tls_ca, timeout_s=FLUSH_S)

    def flush() -> None:
        if server.post("/admin/v1/flush").get("lock_inode") != lock_inode(data_dir):
            raise ValueError(f"the server at {http} has another directory open than {data_dir}")

    return flush


def say_file(done: str) -> Callable[["File"], None]:
    """Tells each file on a terminal, in one line that is written over."""

    def say(file: "File") -> None:
        if sys.stderr.isatty():
            print(f"\r{done} {file.path[-60:]:60}", end="\r", file=sys.stderr, flush=True)

    return say


@contextmanager
def failures() -> Iterator[None]:
    """One line and status 1."""
    from sluiceway.errors import SluicewayError

    try:
        yield
    except (OSError, ValueError, ImportError, SluicewayError) as error:
        print(f"sluiceway: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
