"""The spool: order, bounds, marks, damage, one client at a time."""

import errno
import struct
import zlib
from pathlib import Path

import pytest

from sluiceway.client.errors import ClientError
from sluiceway.client.spool import Spool
from sluiceway.client.spool_segment import HEADER_BYTES, RECORD_BYTES, SUFFIX

BODY = b"x" * 100
RECORD = RECORD_BYTES + len(BODY)


def waiting(spool: Spool) -> list[bytes]:
    """Everything that waits, taken out in order."""
    told = []
    while (batch := spool.head()) is not None:
        told.append(batch.body)
        spool.done(batch.sequence)
    return told


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


def test_what_waits_is_told_again_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    for i in range(30):
        assert spool.put(3, i, b"%d" % i) == i
    for _ in range(10):
        batch = spool.head()
        assert batch is not None
        spool.done(batch.sequence)
    spool.close()
    again = Spool(tmp_path, 10_000)
    assert (again.batch_count, again.points) == (20, sum(range(10, 30)))
    assert again.put(1, 5, b"new") == 30
    assert waiting(again) == [b"%d" % i for i in range(10, 30)] + [b"new"]
    again.close()
    assert segments(tmp_path) == [], "nothing waits, nothing is left"


def test_it_never_takes_more_than_its_bytes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 16 * RECORD)
    taken = 0
    while spool.put(3, 1, BODY) is not None:
        taken += 1
        assert sum(p.stat().st_size for p in segments(tmp_path)) == spool.used_bytes
    assert spool.used_bytes <= 16 * RECORD
    assert taken >= 13
    assert not spool.has_room(len(BODY))
    for _ in range(200):  # marks too stay within
        batch = spool.head()
        assert batch is not None
        spool.done(batch.sequence)
        while spool.put(3, 1, BODY) is not None:
            pass
        assert spool.used_bytes <= 16 * RECORD
    assert spool.write_errors == 0


def test_the_oldest_go_but_never_the_one_being_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 16 * RECORD)
    bodies = [b"%03d" % i + BODY[3:] for i in range(13)]
    assert all(spool.put(3, 2, body) is not None for body in bodies)
    head = spool.head()
    assert head is not None and head.body == bodies[0]
    dropped = spool.drop_oldest()
    assert dropped is not None
    batches, points = dropped
    assert points == 2 * batches > 0
    assert spool.batch_count == 13 - batches
    spool.close()
    left = waiting(Spool(tmp_path, 16 * RECORD))
    assert left[0] == bodies[0]
    assert left == [bodies[0], *left[1:]] and left[-1] == bodies[-1]
    assert left == sorted(left) and len(left) == 13 - batches
    assert spool.drop_oldest() is not None


def test_nothing_can_go_where_all_is_with_the_head(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    assert spool.drop_oldest() is None
    spool.put(3, 1, BODY)
    spool.put(3, 1, BODY)
    assert spool.head() is not None
    assert spool.drop_oldest() is None
    head = spool.head()
    assert head is not None
    spool.done(head.sequence)
    assert spool.drop_oldest() == (1, 1)


def test_a_rotten_batch_is_passed_over_and_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    spool.put(3, 4, b"first" + BODY)
    spool.put(3, 5, b"second" + BODY)
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + RECORD_BYTES + 2] ^= 1
    path.write_bytes(data)
    assert waiting(spool) == [b"second" + BODY]
    assert spool.damaged_points == 4


@pytest.mark.parametrize("rotten", [[0], [1], [0, 1], [3], [0, 2], [0, 1, 2, 3]])
def test_what_stands_behind_rotten_batches_is_told_when_it_opens(
    tmp_path: Path, rotten: list[int]
) -> None:
    spool = Spool(tmp_path, 10_000)
    bodies = [b"%d" % i + BODY for i in range(4)]
    for i, body in enumerate(bodies):
        spool.put(3, i, body)
    spool.close()
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    for i in rotten:
        data[HEADER_BYTES + i * (RECORD + 1) + RECORD_BYTES + 2] ^= 1
    path.write_bytes(data)
    again = Spool(tmp_path, 10_000)
    kept = [i for i in range(4) if i not in rotten]
    assert again.torn_bytes == len(rotten) * (RECORD + 1)
    assert again.points == sum(kept)
    assert waiting(again) == [bodies[i] for i in kept]
    again.close()


def test_a_length_that_is_none_ends_a_segment(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    for _ in range(3):
        spool.put(3, 1, BODY)
    spool.close()
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + RECORD + 4 : HEADER_BYTES + RECORD + 8] = struct.pack("<I", 1 << 24)
    path.write_bytes(data)
    again = Spool(tmp_path, 10_000)
    assert (again.batch_count, again.torn_bytes) == (1, 2 * RECORD)
    again.close()


def test_an_unknown_version_is_refused_by_name(tmp_path: Path) -> None:
    head = b"SLWSPOOL" + struct.pack("<I", 2)
    path = tmp_path / f"{0:016x}{SUFFIX}"
    path.write_bytes(head + struct.pack("<I", zlib.crc32(head)))
    with pytest.raises(ClientError, match="version 2"):
        Spool(tmp_path, 10_000)
    path.unlink()
    Spool(tmp_path, 10_000).close()


def test_one_client_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000)
    with pytest.raises(ClientError, match="another client"):
        Spool(tmp_path, 10_000)
    spool.close()
    Spool(tmp_path, 10_000).close()


class FullDisk:
    """Takes half of each write."""

    def write(self, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    def close(self) -> None:
        pass


def test_a_full_disk_refuses_a_batch_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, 10_000)
    spool.put(3, 1, b"before")
    monkeypatch.setattr(spool, "_writing", FullDisk())
    assert spool.put(3, 1, b"lost") is None
    assert spool.write_errors == 1
    assert spool.put(3, 1, b"after") is not None
    spool.close()
    again = Spool(tmp_path, 10_000)
    assert again.torn_bytes == 0
    assert waiting(again) == [b"before", b"after"]


def test_a_failed_sync_takes_no_other_batch_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: object) -> None:
        raise OSError(errno.EIO, "sync")

    spool = Spool(tmp_path, 10_000, sync=True)
    spool.put(3, 1, b"before")
    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", fail)
        assert spool.put(3, 1, b"refused, and on the disk") is None
    assert spool.put(3, 1, b"after") is not None
    spool.close()
    again = Spool(tmp_path, 10_000)
    for _ in range(2):
        head = again.head()
        assert head is not None
        again.done(head.sequence)
    again.close()
    assert waiting(Spool(tmp_path, 10_000)) == [b"after"]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    for name in ("notes.spool", "1.spool", "readme"):
        (tmp_path / name).write_text("mine")
    spool = Spool(tmp_path, 10_000)
    spool.put(3, 1, b"a")
    assert waiting(spool) == [b"a"]
    spool.close()
    assert {p.name for p in tmp_path.iterdir()} == {"notes.spool", "1.spool", "readme", "lock"}
