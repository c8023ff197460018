"""The client against a real server: kills on both sides, overload, rejections, questions."""

import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from fakes.keyed import Keyed
from fakes.server import Server
from sluiceway.client import (
    AnswerTooLarge,
    Reader,
    ReaderConfig,
    Refused,
    RetryLimits,
    Series,
    Unavailable,
    Writer,
    WriterConfig,
)

QUICK = RetryLimits(backoff_base_s=0.02, backoff_s_max=0.2)
SERIES = [Series("pushed_total", i=str(i)) for i in range(50)]
KILLS = 3
STEPS = 400
STEP_MS = 1_000


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def push(writer: Writer, first: int, count: int, start_ms: int) -> None:
    """Every series once a step; its value is the step."""
    for step in range(first, first + count):
        writer.add_many(((series, float(step)) for series in SERIES), start_ms + step * STEP_MS)
        time.sleep(0.005)


def stored_steps(reader: Reader, start_ms: int, steps: int) -> dict[str, list[float]]:
    """Per series the values as they are stored, oldest first."""
    window_s = steps * STEP_MS // 1000 + 60
    rows = reader.query(f"pushed_total[{window_s}s]", start_ms / 1000 + window_s - 1)
    return {row["metric"]["i"]: [float(v) for _, v in row["values"]] for row in rows}


def known(writer: Writer) -> None:
    """Flush until the gateway knows the key, which was made just now."""
    until_s = time.monotonic() + 5.0
    while True:
        try:
            assert writer.flush(30.0)
            return
        except Refused as refused:
            if refused.status != 401 or time.monotonic() > until_s:
                raise
            time.sleep(0.05)


def raw_ledger(server: Server) -> dict[str, Any]:
    server.call("POST", "/admin/v1/flush")
    told: dict[str, Any] = server.get("ledger", raw_scan=1)
    return told


@pytest.mark.parametrize("spooled", [True, False])
def test_a_server_killed_again_and_again_loses_and_doubles_nothing(
    tmp_path: Path, spooled: bool
) -> None:
    server = Server(tmp_path / "data")
    start_ms = int(time.time() * 1000) - STEPS * STEP_MS
    config = WriterConfig(
        batch_points_max=120,
        batch_s_max=0.05,
        retry=QUICK,
        spool_directory=tmp_path / "spool" if spooled else None,
    )
    with server, Writer(address(server), config=config) as writer:
        adder = threading.Thread(target=push, args=(writer, 0, STEPS, start_ms))
        adder.start()
        for _ in range(KILLS):
            time.sleep(0.3)
            server.kill()
            time.sleep(0.1)
            server.start()
        adder.join()
        assert writer.flush(30.0)
        told = writer.statistics()
        assert told.points_acked == told.points_added == STEPS * len(SERIES)
        assert told.retries > 0 and told.points_waiting == 0
        ledger = raw_ledger(server)
        outcomes = ledger["tenants"]["default"]
        assert ledger["balanced"]
        assert outcomes["stored"] == told.points_added
        assert ledger["movements"]["superseded"] == 0, "a batch sent twice is stored once"
        steps = stored_steps(Reader(address(server)), start_ms, STEPS)
        assert len(steps) == len(SERIES)
        assert all(values == [float(s) for s in range(STEPS)] for values in steps.values())


PUSHER = """
import sys, time
from pathlib import Path
from sluiceway.client import RetryLimits, Series, Writer, WriterConfig
url, spool, start_ms = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
config = WriterConfig(batch_points_max=120, batch_s_max=0.02, spool_directory=spool,
                      retry=RetryLimits(0.02, 0.2))
writer = Writer(url, config=config)
series = [Series("pushed_total", i=str(i)) for i in range(50)]
for step in range(100000):
    writer.add_many([(s, float(step)) for s in series], start_ms + step * 100)
    time.sleep(0.002)
"""


def test_a_client_killed_sends_what_it_spooled_once(tmp_path: Path) -> None:
    start_ms = int(time.time() * 1000) - 600_000
    config = WriterConfig(spool_directory=tmp_path / "spool", retry=QUICK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with Server(tmp_path / "data") as server:
        told_points = 0
        for life in range(3):
            arguments = [address(server), str(tmp_path / "spool"), str(start_ms)]
            child = subprocess.Popen([sys.executable, "-c", PUSHER, *arguments], env=environment)
            until_s = time.monotonic() + 20.0
            while not list((tmp_path / "spool").glob("*.spool")):
                assert child.poll() is None and time.monotonic() < until_s
                time.sleep(0.01)
            time.sleep(0.4)
            if life == 1:
                server.kill()
                time.sleep(0.3)
            child.send_signal(signal.SIGKILL)
            child.wait()
            if life == 1:
                server.start()
            with Writer(address(server), config=config) as writer:
                assert writer.flush(20.0)
                told_points += writer.statistics().points_found
            start_ms += 100_000  # the next life's steps follow, with room between
        assert told_points > 0, "kills left batches behind"
        ledger = raw_ledger(server)
        assert ledger["balanced"] and ledger["movements"]["superseded"] == 0
        start_ms -= 300_000
        steps = stored_steps(Reader(address(server)), start_ms, 600)
        lengths = {len(values) for values in steps.values()}
        assert len(steps) == len(SERIES) and max(lengths) - min(lengths) <= 3
        for values in steps.values():
            lives = [i for i, value in enumerate(values) if value == 0.0]
            assert len(lives) == 3
            for first, end in zip(lives, [*lives[1:], len(values)], strict=True):
                expected = [float(step) for step in range(end - first)]
                assert values[first:end] == expected, "a batch is missing or is there twice"


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path / "data")
    with keyed.server:
        yield keyed


def test_a_tenant_over_its_rate_is_told_when_to_come_back(keyed: Keyed) -> None:
    limits = {"write": {"points_per_s": 1000, "points_burst": 1000}}
    key = keyed.tenant("acme", limits=limits)
    config = WriterConfig(batch_points_max=500, retry=QUICK)
    now_ms = int(time.time() * 1000) - 100_000
    with Writer(address(keyed.server), key, config) as writer:
        writer.add(SERIES[0], 1.0, now_ms - 1)
        known(writer)
        began_s, before = time.monotonic(), writer.statistics()
        for step in range(100):
            writer.add_many(((series, 1.0) for series in SERIES), now_ms + step)
        assert writer.flush(30.0)
        took_s = time.monotonic() - began_s
        told = writer.statistics()
    assert told.points_acked == 5001
    assert took_s > 2.0, "5,000 points at 1,000 a second, with a burst"
    retries = told.retries - before.retries
    assert retries <= 2 * took_s, "it came back when it was told to, not by its own pauses"


def test_a_key_that_may_not_write_holds_the_points_back(keyed: Keyed) -> None:
    read_only = keyed.key("default", "read")
    with Writer(address(keyed.server), read_only, WriterConfig(retry=QUICK)) as writer:
        writer.add(SERIES[0], 1.0)
        with pytest.raises(Refused) as refused:
            known(writer)
        assert refused.value.status == 403 and refused.value.id.startswith("sluiceway-")
        assert writer.statistics().points_waiting == 1
        with pytest.raises(Refused):
            writer.close(0.2)


def test_rejected_points_and_questions(keyed: Keyed) -> None:
    now_ms = int(time.time() * 1000)
    url = address(keyed.server)
    with Writer(url, keyed.root) as writer:
        writer.add_many(((series, 2.0) for series in SERIES), now_ms)
        writer.add(Series("late_total"), 1.0, now_ms + 3_600_000)
        writer.add(Series(""), 1.0, now_ms)
        assert writer.flush(10.0)
        told = writer.statistics()
    assert (told.points_acked, told.points_rejected) == (50, 2)
    assert told.rejected == {"too_far_in_future": 1, "missing_name": 1}
    reader = Reader(url, keyed.root)
    assert reader.query("sum(pushed_total)", now_ms / 1000)[0]["value"][1] == "100"
    ranged = reader.query_range("pushed_total", now_ms / 1000, now_ms / 1000 + 10, 10)
    assert len(ranged) == 50
    assert len(reader.series(["pushed_total"])) == 50
    assert reader.ledger()["tenants"]["default"]["received"] == 52
    assert reader.cardinality()
    with pytest.raises(AnswerTooLarge):
        Reader(url, keyed.root, ReaderConfig(answer_bytes_max=1000)).series(["pushed_total"])
    with pytest.raises(Refused) as refused:
        Reader(url, "swk_none").query("up")
    assert (refused.value.status, refused.value.id) == (401, "sluiceway-key-unknown")
    with pytest.raises(Refused) as refused:
        reader.query("sum(")
    assert refused.value.status == 400


def test_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    flags = []
    for name, blobs in (("cert", issued.cert_chain_pems), ("key", [issued.private_key_pem])):
        file = tmp_path / f"{name}.pem"
        file.write_bytes(b"".join(blob.bytes() for blob in blobs))
        flags += [f"--tls-{name}", str(file)]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = Server(tmp_path / "data", *flags).start(wait=False)
    try:
        url = f"https://127.0.0.1:{server.port}"
        now_ms = int(time.time() * 1000)
        with Writer(url, config=WriterConfig(retry=QUICK), tls=context) as writer:
            writer.add(SERIES[0], 3.0, now_ms)
            assert writer.flush(60.0), writer.statistics().last_error
        reader = Reader(url, config=ReaderConfig(retry=QUICK), tls=context)
        assert reader.query("pushed_total", now_ms / 1000)[0]["value"][1] == "3"
        with pytest.raises(Unavailable, match="certificate"):
            Reader(url, config=ReaderConfig(timeout_s=0.5)).query("up")
    finally:
        server.kill()
