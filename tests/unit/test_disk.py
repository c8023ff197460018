"""The disk as Python sees it; the model itself is tested beside its Rust code."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sluiceway.errors import BackendUnavailable
from sluiceway.kernels import Disk


@pytest.fixture(params=["real", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return Disk.real(str(tmp_path / "data")) if request.param == "real" else Disk.memory()


def test_files(disk: Disk) -> None:
    disk.create_directory("a/b")
    disk.write_new("a/b/one", b"1")
    with pytest.raises(FileExistsError):
        disk.write_new("a/b/one", b"2")
    disk.rename("a/b/one", "a/b/two")
    assert (disk.list("a"), disk.list("a/b"), disk.read("a/b/two")) == (["b"], ["two"], b"1")
    disk.remove("a/b/two")
    disk.sync_directory("a/b")
    with pytest.raises(FileNotFoundError):
        disk.read("a/b/two")
    with pytest.raises(OSError, match="not a path"):
        disk.read("../x")
    assert disk.list("nowhere") == []
    assert disk.free_bytes() > 0


def test_lock_is_exclusive(tmp_path: Path) -> None:
    first, second = Disk.real(str(tmp_path)), Disk.real(str(tmp_path))
    first.lock()
    with pytest.raises(BackendUnavailable):
        second.lock()
    del first
    second.lock()


def test_faults_follow_the_plan(disk: Disk) -> None:
    faulty = disk.faulty({"rules": [{"operation": "sync", "times": 1}]})
    with pytest.raises(OSError) as failure:
        faulty.write_new("x", b"1")
    assert failure.value.errno == errno.EIO
    assert faulty.list("") == []
    faulty.set_faults({"bytes_max": 3})
    with pytest.raises(OSError) as failure:
        faulty.write_new("x", b"1234")
    assert failure.value.errno == errno.ENOSPC
    faulty.set_faults({})
    faulty.write_new("x", b"1234")
    assert (disk.read("x"), faulty.fault_count()) == (b"1234", 2)


def test_a_crash_keeps_what_was_synced() -> None:
    disk = Disk.memory()
    disk.write_new("sure", b"x" * 600)
    sure = disk.operation_count()
    disk.write_new("maybe", b"y")
    for seed in range(50):
        assert disk.crash_image(sure, seed).read("sure") == b"x" * 600
        assert disk.crash_image(sure, seed).list("") == ["sure"]
        image = disk.crash_image(disk.operation_count() - 1, seed)
        assert image.list("") in (["sure"], ["maybe", "sure"])
