"""The real server under faults: failing syncs, a full disk, lost answers, a drain under load, the
read side killed, little memory. The oracle of FAULTS 2b after each."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode

import cramjam
import pytest

from fakes.server import remote_write
from tests.faults.client import Client, check, must_retry_later, new_ledger
from tests.faults.kill import FREQUENT_SEALS, HEADERS, START_MS
from tests.faults.proxy import CuttingProxy
from tests.faults.server import ServerUnderTest
from tests.faults.trace import injected, need_strace

RESUME_S_MAX = 5.0
DEADLINE_S, LATE_S_MAX = 5, 0.5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerUnderTest]:
    (tmp_path / "data").mkdir()
    with ServerUnderTest(tmp_path / "data", env=FREQUENT_SEALS) as running:
        yield running


def process_id(server: ServerUnderTest) -> int:
    assert server.process is not None
    return server.process.pid


def test_a_failed_sync_is_never_acked(server: ServerUnderTest) -> None:
    """A6: fdatasync fails once, then for two seconds; nothing is acked by it, all goes on after."""
    need_strace()
    ledger = new_ledger(1)
    client = Client(server.port, ledger)
    client.start()
    with injected(process_id(server), "fdatasync:error=EIO:when=3"):
        time.sleep(1.0)
    with injected(process_id(server), "fdatasync:error=EIO"):
        began_s = time.monotonic()
        time.sleep(2.0)
        until_s = time.monotonic()
        failed = client.statuses(began_s, until_s)
    client.wait_for_ack(time.monotonic(), RESUME_S_MAX)
    client.stop()
    must_retry_later(client)
    assert failed and set(failed) == {503}, failed
    check(server, ledger)
    server.kill()
    server.start()
    assert check(server, ledger).acked > 0


@contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("NOT ROOT: a tmpfs cannot be mounted; the full disk is not tested here")
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "sluiceway-test", str(path)]
    tried = subprocess.run(command, capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"NO MOUNT: the full disk is not tested here: {tried.stderr.decode()[:200]}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@pytest.mark.parametrize("full_s", [3.0, pytest.param(60.0, marks=pytest.mark.faults)])
def test_a_full_disk_refuses_answers_and_resumes(tmp_path: Path, full_s: float) -> None:
    """A7: no room for a while, then room: refused with 503, queries answer, resumed in 5 s."""
    with small_disk(tmp_path / "disk", 48):
        data = tmp_path / "disk" / "data"
        data.mkdir()
        server = ServerUnderTest(data, env=FREQUENT_SEALS)
        with server:
            ledger = new_ledger(2)
            client = Client(server.port, ledger, batch_points=200)
            client.start()
            time.sleep(1.0)
            filler = tmp_path / "disk" / "filler"
            fill(filler)
            deadline_s = time.monotonic() + 30
            while 503 not in client.statuses(deadline_s - 30):
                assert time.monotonic() < deadline_s, "never refused"
                fill(filler.with_suffix(".more"))
                time.sleep(0.2)
            began_s = time.monotonic()
            time.sleep(1.0)
            answer = server.json("/api/v1/query", query="1 + count(oracle_points_total)")
            assert answer["status"] == "success"
            while time.monotonic() < began_s + full_s:
                time.sleep(0.1)
            assert 204 not in client.statuses(began_s + 1.0, time.monotonic())
            answer = server.json("/api/v1/query", query="1 + count(oracle_points_total)")
            assert answer["status"] == "success"
            for path in (tmp_path / "disk").glob("filler*"):
                path.unlink()
            resumed_s = client.wait_for_ack(time.monotonic(), RESUME_S_MAX)
            time.sleep(1.0)
            client.stop()
            must_retry_later(client)
            assert set(client.statuses()) <= {204, 503}
            check(server, ledger)
            server.kill()
            server.start()
            report = check(server, ledger)
            print(json.dumps({"test": "A7", "resume_s": resumed_s, "acked": report.acked}))


def test_lost_answers_and_resends_store_once(server: ServerUnderTest) -> None:
    """A12: three answers in ten are cut after the commit; resent 1-5 times, also after a kill."""
    ledger = new_ledger(3)
    with CuttingProxy(server.port, percent=30, seed=4) as proxy:
        client = Client(proxy.port, ledger, tries=2)
        chance = random.Random(5)
        for _ in range(4):
            batches = [ledger.new_batch(15) for _ in range(40)]
            for batch in batches:
                client.send(batch)
            server.kill()
            server.start()
            for batch in chance.sample(batches, 20):
                for _ in range(chance.randint(1, 5)):
                    client.send(batch)
        assert proxy.cut > 40
    direct = Client(server.port, ledger)
    for batch in ledger.batches:
        direct.send(batch)
    report = check(server, ledger)
    assert report.acked == 4 * 40 * 15


def test_sigterm_under_load_drains(server: ServerUnderTest) -> None:
    ledger = new_ledger(6)
    client = Client(server.port, ledger, tries=1)
    client.pause_s = 0.0
    client.start()
    time.sleep(1.0)
    began_s = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - began_s <= 10.0
    client.stop()
    assert set(client.statuses()) <= {204, 503, 0}
    must_retry_later(client)
    server.start()
    assert check(server, ledger).acked > 0


def test_acks_go_on_while_the_read_side_is_killed(server: ServerUnderTest) -> None:
    ledger = new_ledger(7)
    client = Client(server.port, ledger)
    client.start()
    for _ in range(3):
        children = Path(f"/proc/{process_id(server)}/task/{process_id(server)}/children")
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
        time.sleep(0.3)
        server.wait_ready()
    client.stop()
    assert set(client.statuses()) == {204}, client.statuses()
    assert b"sluiceway_read_side_restarts_total 3" in server.call("GET", "/metrics")[1]
    check(server, ledger)


WIDE = 'count by (series) ({__name__=~".+"})'
QUERIES_OF_DEATH: list[dict[str, str]] = [
    {"query": query}
    for query in (
        "count_over_time(oracle_points_total[3650d:1s])",
        "sum_over_time((oracle_points_total[3650d])[3650d:1s])",
        "max_over_time(rate(oracle_points_total[1d])[90d:1s])",
        f"max_over_time(({WIDE})[30d:1s])",
        "absent_over_time(vector(1)[3650d:1s])",
        "+".join(["oracle_points_total"] * 3_000),
        "predict_linear(vector(time())[365d:1s], 1)",
        'label_replace(oracle_points_total, "a", "$1", "series", "(.*.*.*.*.*.*)+x")',
    )
] + [
    # As many steps as are allowed, each over as much as is allowed.
    {
        "query": query,
        "start": str(START_MS // 1000),
        "end": str(START_MS // 1000 + 10_900),
        "step": "1",
    }
    for query in (
        "quantile_over_time(0.99, oracle_points_total[10d])",
        "sum(sum_over_time(rate(oracle_points_total[1h])[3h:1s]))",
        "topk(10, stddev_over_time(oracle_points_total[3h:1s]))",
        "max_over_time(max_over_time(oracle_points_total[1h:1s])[1h:1s])",
        "oracle_points_total * on (series) oracle_points_total or " + WIDE,
        "count_values('v', oracle_points_total)",
        "+".join(["rate(oracle_points_total[1h])"] * 300),
    )
]


def test_queries_of_death_cost_ingest_nothing(server: ServerUnderTest) -> None:
    """C5: each ends in an answer or in a clear refusal, the process lives, acks go on."""
    ledger = new_ledger(8)
    client = Client(server.port, ledger, batch_points=500)
    for _ in range(20):
        client.send(ledger.new_batch(4_000))
    client.start()
    before = server.process
    told: list[tuple[str, int, str, float]] = []

    def ask_one(parameters: dict[str, str]) -> None:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        path = "/api/v1/query_range" if "step" in parameters else "/api/v1/query"
        given = {"time": str(START_MS // 1000 + 3_600), "timeout": f"{DEADLINE_S}s", **parameters}
        asked_s = time.monotonic()
        status, text = server.call("POST", path, urlencode(given).encode(), form, timeout_s=60)
        words = "" if status == 200 else json.loads(text)["error"]
        told.append((parameters["query"][:60], status, words, time.monotonic() - asked_s))

    threads = [threading.Thread(target=ask_one, args=(query,)) for query in QUERIES_OF_DEATH]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    until_s = time.monotonic()
    client.stop()
    print(*told, sep="\n")
    assert len(told) == len(QUERIES_OF_DEATH), told
    assert all(status in (200, 400, 422, 503) for _, status, _, _ in told), told
    assert all(words for _, status, words, _ in told if status != 200), told
    assert max(seconds for _, _, _, seconds in told) < DEADLINE_S + LATE_S_MAX, told
    # Five are over a limit of steps; of the others at least one is too much for this server.
    assert sum(status in (422, 503) for _, status, _, _ in told) >= 6, told
    during = client.statuses(began_s, until_s)
    assert during and set(during) == {204}, during
    assert server.process is before and server.process is not None
    assert server.process.poll() is None
    server.wait_ready()
    check(server, ledger)


MEMORY_MIB = 256
CHURN_SERIES = 250_000


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path | None]:
    """A cgroup (version 1) with a memory limit; None, loudly, where there can be none."""
    group = Path(f"/sys/fs/cgroup/memory/sluiceway-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as error:
        print(f"NO MEMORY CGROUP, only resident memory is checked: {error}", file=sys.stderr)
        yield None
        return
    try:
        yield group
    finally:
        for _ in range(100):  # its last process has ended, but may not have left it yet
            with suppress(OSError):
                group.rmdir()
            if not group.exists():
                break
            time.sleep(0.1)


def start_in(group: Path | None, server: ServerUnderTest) -> None:
    """As if the container were started again: the same limit from the first page on."""
    server.start(wait=False)
    if group is not None:
        (group / "cgroup.procs").write_text(str(process_id(server)))
    server.wait_ready()


def churn_bodies(count: int) -> Iterator[bytes]:
    """Requests of 2,000 new series each."""
    labels = {"__name__": "churn", "pod": "pod-0123456789", "job": "kubernetes-pods"}
    one = bytes(cramjam.snappy.decompress_raw(remote_write([(labels, [(START_MS, 1.0)])])))
    template = one.replace(b"%", b"%%").replace(b"0123456789", b"%010d")
    for first in range(0, count, 2_000):
        rows = b"".join(template % number for number in range(first, first + 2_000))
        yield bytes(cramjam.snappy.compress_raw(rows))


def test_new_series_without_end_fit_into_little_memory(tmp_path: Path) -> None:
    """A8: more series than there is room for are refused; never killed for memory, not at the
    peak and not when it starts again under the same limit."""
    limit_bytes = MEMORY_MIB << 20
    (tmp_path / "data").mkdir()
    environment = FREQUENT_SEALS | {"SLUICEWAY_MEMORY_MAX": f"{MEMORY_MIB}MiB"}
    server = ServerUnderTest(tmp_path / "data", env=environment)
    with memory_group(limit_bytes) as group:
        try:
            start_in(group, server)
            for body in churn_bodies(CHURN_SERIES):
                assert server.call("POST", "/api/v1/write", body, HEADERS)[0] == 204
            ledger = new_ledger(9)
            client = Client(server.port, ledger)
            client.send(ledger.new_batch(20))
            assert peak_bytes(process_id(server)) <= limit_bytes * 3 // 4
            server.kill()
            start_in(group, server)
            assert peak_bytes(process_id(server)) <= limit_bytes * 3 // 4
            told = server.json("/api/v1/ledger", raw_scan="true")["data"]
            assert told["balanced"], told
            assert told["tenants"]["default"]["rejected"]["series_max"] > 0, told
            if group is not None:
                assert "oom_kill 0" in (group / "memory.oom_control").read_text()
        finally:
            server.kill()


def peak_bytes(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
