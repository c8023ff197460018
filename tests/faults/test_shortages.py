"""A7: the real server without a free descriptor, with files that may not grow, with calls that are
interrupted: nothing acked is lost, and it goes on by itself when the shortage ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.client import Client, check, must_retry_later, new_ledger
from tests.faults.kill import FREQUENT_SEALS
from tests.faults.server import ServerUnderTest
from tests.faults.trace import injected, need_strace

RESUME_S_MAX = 5.0
SHORTAGE_S = 2.0
SPARE_DESCRIPTORS = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerUnderTest]:
    (tmp_path / "data").mkdir()
    with ServerUnderTest(tmp_path / "data", env=FREQUENT_SEALS) as running:
        yield running


def process_id(server: ServerUnderTest) -> int:
    assert server.process is not None
    return server.process.pid


@contextmanager
def limited(process_id: int, which: int, soft: int) -> Iterator[None]:
    """While inside, a running process has a lower soft limit."""
    before = resource.prlimit(process_id, which)
    resource.prlimit(process_id, which, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process_id, which, before)


def descriptors(process_id: int) -> int:
    return len(list(Path(f"/proc/{process_id}/fd").iterdir()))


def cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finish(server: ServerUnderTest, client: Client, resumed_after_s: float) -> None:
    """Acks resume, seals too; all is there, also after a kill and a restart."""
    client.wait_for_ack(resumed_after_s, RESUME_S_MAX)
    assert server.call("POST", "/admin/v1/flush?merge=all", timeout_s=60)[0] == 200
    client.stop()
    must_retry_later(client)
    assert set(client.statuses()) <= {204, 503, 0}, set(client.statuses())
    check(server, client.ledger)
    server.kill()
    server.start()
    assert check(server, client.ledger).acked > 0


def test_no_descriptor_is_left(server: ServerUnderTest) -> None:
    """Neither accepts nor new files of journal, blocks and manifests work; then they do again."""
    client = Client(server.port, new_ledger(21))
    client.start()
    time.sleep(0.5)
    idle: list[socket.socket] = []
    with limited(
        process_id(server),
        resource.RLIMIT_NOFILE,
        descriptors(process_id(server)) + SPARE_DESCRIPTORS,
    ):
        began_s, burned_s = time.monotonic(), cpu_seconds(process_id(server))
        while time.monotonic() < began_s + SHORTAGE_S:
            with suppress(OSError):
                idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=0.2))
            time.sleep(0.02)
        # It waits for a descriptor; it does not ask for one without a pause.
        burned_s = cpu_seconds(process_id(server)) - burned_s
        print(f"{burned_s:.2f} CPU seconds in {SHORTAGE_S}")
        assert burned_s < 0.5 * SHORTAGE_S
    for one in idle:
        one.close()
    assert len(idle) > 2 * SPARE_DESCRIPTORS
    told = server.json("/admin/v1/status")
    assert told["metrics"]["sluiceway_processor_errors_total"] > 0, "no seal met the shortage"
    finish(server, client, time.monotonic())


def test_files_may_not_grow(server: ServerUnderTest) -> None:
    """Writes past a size come back short, then fail: what RLIMIT_FSIZE does to real calls."""
    client = Client(server.port, new_ledger(22), batch_points=100)
    client.start()
    time.sleep(0.5)
    began_s = time.monotonic()
    with limited(process_id(server), resource.RLIMIT_FSIZE, 5_000):
        time.sleep(SHORTAGE_S)
        failed = client.statuses(began_s + 0.5)
    assert 503 in failed, set(failed)
    finish(server, client, time.monotonic())


def test_calls_are_interrupted(server: ServerUnderTest) -> None:
    """Every third write and open is interrupted: tried again, nobody hears of it."""
    need_strace()
    client = Client(server.port, new_ledger(23))
    client.start()
    rules = ("pwrite64:error=EINTR:when=1+3", "openat:error=EINTR:when=1+3")
    with injected(process_id(server), *rules):
        began_s = time.monotonic()
        time.sleep(SHORTAGE_S)
        told = client.statuses(began_s, time.monotonic())
    assert told and set(told) == {204}, set(told)
    finish(server, client, time.monotonic())


def test_an_interrupted_sync_is_not_taken_for_one(server: ServerUnderTest) -> None:
    need_strace()
    client = Client(server.port, new_ledger(24))
    client.start()
    with injected(process_id(server), "fdatasync:error=EINTR:when=1+5"):
        began_s = time.monotonic()
        time.sleep(SHORTAGE_S)
        assert 503 in client.statuses(began_s, time.monotonic())
    finish(server, client, time.monotonic())


def test_stopped_for_a_while(server: ServerUnderTest) -> None:
    """A10 in small: SIGSTOP for two seconds, SIGCONT; acks resume."""
    client = Client(server.port, new_ledger(25))
    client.start()
    time.sleep(0.3)
    os.kill(process_id(server), signal.SIGSTOP)
    time.sleep(SHORTAGE_S)
    os.kill(process_id(server), signal.SIGCONT)
    finish(server, client, time.monotonic())
