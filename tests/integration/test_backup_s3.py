"""Backup to S3 (SeaweedFS) and restore from it: as to a directory; a damaged page stops it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.server import Server
from fakes.transfer import run
from services.seaweed import Seaweed

Place = tuple[str, tuple[str, ...]]


@pytest.fixture
def place_on_s3(tmp_path: Path) -> Iterator[Place]:
    """A place in a bucket, and the options that reach it."""
    with Seaweed(tmp_path / "seaweed") as server:
        words = [f"{name}={value}" for name, value in server.options.items()]
        given = tuple(part for word in words for part in ("--store", word))
        yield f"s3://{server.make_bucket('backups')}/below", given


def test_a_backup_on_s3_is_restored(
    tmp_path: Path, place_on_s3: tuple[str, tuple[str, ...]]
) -> None:
    live = tmp_path / "live"
    place, store = place_on_s3
    points = [(k * 1000, float(k)) for k in range(1, 500)]
    with Server(live) as server:
        asked = ("--data-dir", str(live), "--to", place, "--http", f"127.0.0.1:{server.port}")
        for round_number in range(2):
            labels = {"__name__": "m", "i": str(round_number)}
            assert server.write([(labels, points)]) == 204
            status, told = run("backup", *asked, *store)
            assert status == 0 and f"backup {round_number + 1}: " in told, told
        held = server.values("sum_over_time(m[10m])", 500)
        server.stop()
    assert run("restore", "--from", place, "--verify", *store)[0] == 0
    status, told = run("restore", "--from", place, "--data-dir", str(tmp_path / "new"), *store)
    assert status == 0, told
    with Server(tmp_path / "new") as restored:
        assert restored.values("sum_over_time(m[10m])", 500) == held
    # A page that rotted keeps its file's size and trailer: the backup says so and commits nothing.
    blocks = sorted((live / "hot" / "metrics" / "blocks").iterdir())
    data = bytearray(blocks[-1].read_bytes())
    data[20] ^= 1
    blocks[-1].write_bytes(data)
    status, told = run("backup", "--data-dir", str(live), "--to", str(tmp_path / "other"))
    assert status == 1 and "pages are damaged" in told, told
    assert not list((tmp_path / "other").glob("index/*"))
