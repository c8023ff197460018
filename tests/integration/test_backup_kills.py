"""kill -9 of `sluiceway backup` and `restore` at many moments: what was there stays, what is left
goes with the next one. The moments are the points where a process waits for the disk."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fakes.server import Server
from integration.test_backup import run, write
from sluiceway.clock import SystemClock
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.services.backup.index import numbers, read_index
from sluiceway.services.backup.restore import verify_objects
from sluiceway.services.backup.take import take_backup

KILLED = """
import os, signal, sys
left, sync = int(sys.argv.pop(1)), os.fsync
def killed(descriptor):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
os.fsync = killed
from sluiceway.cli import main
main()
"""


def run_killed(moment: int, *arguments: str) -> int:
    """The status of a command that is killed when it waits for the disk for the nth time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", KILLED, str(moment), *arguments]
    return subprocess.run(command, capture_output=True, env=environment, timeout=60).returncode


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A directory of one block and a journal, with a backup of before it had either."""
    with Server(tmp_path / "live") as server:
        write(server, 0)
        assert server.call("POST", "/admin/v1/flush")[0] == 200
        write(server, 1)
    return tmp_path / "live"


def below(place: Path) -> set[str]:
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def test_a_killed_backup_costs_nothing(
    live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, scratch = tmp_path / "backups", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    store, data = EmbeddedObjects(place), ("--data-dir", str(live), "--to", str(place))
    take_backup(live, store, SystemClock(), flush=None)
    with Server(live) as server:
        write(server, 2)
    held = below(place)
    for moment in (1, 2, 3, 4):
        assert run_killed(moment, "backup", *data) == -signal.SIGKILL
        (number,) = numbers(store)
        assert verify_objects(store, read_index(store, number), lambda file: None) == []
    assert below(place) > held, "something was cut off"
    with Server(live) as server:
        write(server, 3)  # Some of what was stored is of no use any more.
    status, told = run("backup", *data)
    assert status == 0 and "that backups which were cut off had left" in told, told
    assert not any("unfinished" in name or name == "running" for name in below(place))
    assert list(scratch.iterdir()) == []
    status, told = run("restore", "--from", str(place), "--data-dir", str(tmp_path / "new"))
    assert status == 0, told
    with Server(tmp_path / "new") as restored:
        assert restored.get("query", query="sum(count_over_time(load[20m]))")["result"]


def test_a_killed_restore_is_run_again(live: Path, tmp_path: Path) -> None:
    place, target = tmp_path / "backups", tmp_path / "new"
    assert run("backup", "--data-dir", str(live), "--to", str(place))[0] == 0
    arguments = ("restore", "--from", str(place), "--data-dir", str(target))
    for moment in (1, 3, 6, 9):
        assert run_killed(moment, *arguments) == -signal.SIGKILL
        assert not target.exists()
    (left,) = tmp_path.glob(".new.restoring-*")
    status, told = run(*arguments)
    assert status == 0 and f"removed {left}" in told, told
    assert not list(tmp_path.glob(".new.restoring-*"))
    with Server(target):
        pass
