"""The writer's thread over a transport that answers from a list: every point is accounted for."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.answering import Answering, answer
from sluiceway.client import (
    ClientError,
    Closed,
    Refused,
    RetryLimits,
    Series,
    Statistics,
    Undelivered,
    Writer,
    WriterConfig,
)
from sluiceway.clock import jitter

UP = Series("up", instance="a")
QUICK = RetryLimits(backoff_base_s=0.001, backoff_s_max=0.002, failures_max=3)
MALFORMED = answer(400, "bad (sluiceway-body-malformed)")
NO_KEY = answer(401, "unknown key (sluiceway-key)")
TAKEN = answer(204)


def writer(transport: Answering, **more: Any) -> Writer:
    config = WriterConfig(
        **{"batch_points_max": 10, "batch_s_max": 60.0, "retry": QUICK, "close_s_max": 0.5, **more}
    )
    return Writer("http://nowhere", config=config, transport=transport, source=jitter(1))


def add(writer: Writer, points: int) -> None:
    writer.add_many(((UP, float(i)) for i in range(points)), 1_700_000_000_000)


def balanced(told: Statistics) -> bool:
    decided = told.points_acked + told.points_rejected + told.points_refused
    lost = told.points_dropped + told.points_damaged
    return told.points_added + told.points_found == decided + lost + told.points_waiting


def within(condition: Callable[[], bool], why: str) -> None:
    deadline_s = time.monotonic() + 5.0
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.005)


def test_points_become_batches_and_batches_are_acked() -> None:
    transport = Answering(TAKEN)
    with writer(transport) as client:
        add(client, 25)
        assert client.flush(5.0)
        told = client.statistics()
        assert (told.points_acked, told.batches_acked, told.requests) == (25, 3, 3)
        assert balanced(told) and told.points_waiting == 0
    assert len(set(transport.bodies)) == 3
    with pytest.raises(Closed):
        add(client, 1)


def test_equal_points_added_twice_are_two_batches() -> None:
    transport = Answering(TAKEN)
    with writer(transport) as client:
        for _ in range(2):
            add(client, 10)
    assert len(set(transport.bodies)) == 2, "only a retry has the same bytes"


def test_age_closes_a_batch() -> None:
    with writer(Answering(TAKEN), batch_s_max=0.02) as client:
        add(client, 3)
        within(lambda: client.statistics().points_acked == 3, "without flush")


def test_no_answer_and_overload_send_the_same_bytes_again() -> None:
    transport = Answering(None, answer(503, "full", retry_after="0"), answer(429), TAKEN)
    with writer(transport) as client:
        add(client, 10)
        assert client.flush(5.0)
        told = client.statistics()
        assert (told.points_acked, told.requests, told.retries) == (10, 4, 3)
        assert told.last_error == ""
    assert len(set(transport.bodies)) == 1


def test_a_refusal_is_raised_once_with_its_id_and_the_rest_goes_on() -> None:
    with writer(Answering(MALFORMED, TAKEN)) as client:
        add(client, 20)
        with pytest.raises(Refused) as refused:
            client.flush(5.0)
        assert (refused.value.status, refused.value.id) == (400, "sluiceway-body-malformed")
        assert client.flush(5.0)
        told = client.statistics()
        assert (told.points_acked, told.points_refused) == (10, 10)
        assert balanced(told)


def test_close_raises_what_flush_was_not_asked_for() -> None:
    with pytest.raises(Refused), writer(Answering(MALFORMED)) as client:
        add(client, 10)


def test_a_key_that_is_not_taken_loses_nothing() -> None:
    transport = Answering(NO_KEY, NO_KEY, NO_KEY, TAKEN)
    with writer(transport) as client:
        add(client, 10)
        while True:
            try:
                assert client.flush(5.0)
                break
            except Refused as refused:
                assert (refused.status, refused.id) == (401, "sluiceway-key")
        assert client.statistics().points_acked == 10


def test_rejected_points_are_told_by_reason() -> None:
    partly = answer(400, "4 of 10 points refused (invalid_labels: 3, missing_name: 1); first: x")
    with writer(Answering(partly)) as client:
        add(client, 20)
        assert client.flush(5.0)
        told = client.statistics()
        assert (told.points_acked, told.points_rejected) == (12, 8)
        assert told.rejected == {"invalid_labels": 6, "missing_name": 2}
        assert told.last_error.startswith("4 of 10") and balanced(told)


SMALL = {"compression": "snappy", "batch_bytes_max": 500, "queue_bytes_max": 2000}


@pytest.mark.parametrize(("when_full", "spool"), [("newest", 0), ("oldest", 0), ("oldest", 1)])
def test_past_the_bounds_points_go_and_are_counted(
    when_full: str, spool: int, tmp_path: Path
) -> None:
    transport = Answering(None)
    more: dict[str, Any] = {**SMALL, "when_full": when_full}
    if spool:
        more |= {"spool_directory": tmp_path / "spool", "spool_bytes_max": 4000}
    client = writer(transport, **more)
    add(client, 10)
    within(lambda: bool(transport.bodies), "the first batch is under way")
    add(client, 1000)
    told = client.statistics()
    assert told.points_dropped > 500 and balanced(told)
    assert told.bytes_waiting <= 2000 or told.spool_bytes <= 4000
    transport.replies[0] = TAKEN
    assert client.flush(5.0)
    client.close()
    told = client.statistics()
    assert balanced(told) and told.points_waiting == 0
    newest = transport.bodies[-1]
    assert newest.endswith(b" 100") is (when_full == "oldest")


def test_wait_holds_back_who_adds_and_drops_nothing() -> None:
    transport = Answering(None)
    client = writer(transport, **SMALL, when_full="wait")
    adder = threading.Thread(target=add, args=(client, 1000))
    adder.start()
    within(lambda: client.statistics().bytes_waiting > 1000, "the queue fills")
    time.sleep(0.05)
    assert adder.is_alive() and client.statistics().points_added < 300
    assert client.flush(0.05) is False
    transport.replies[0] = TAKEN
    adder.join(10)
    assert not adder.is_alive() and client.flush(5.0)
    client.close()
    told = client.statistics()
    assert (told.points_acked, told.points_dropped) == (1000, 0)


def test_closing_without_a_spool_says_what_is_lost() -> None:
    with pytest.raises(Undelivered) as undelivered, writer(Answering(None)) as client:
        add(client, 25)
    assert undelivered.value.points == 25


def test_a_spool_outlives_its_client(tmp_path: Path) -> None:
    more: dict[str, Any] = {"spool_directory": tmp_path, "spool_bytes_max": 8 << 20}
    first = Answering(None)
    with writer(first, **more) as client:
        add(client, 25)
    second = Answering(TAKEN)
    with writer(second, **more) as client:
        assert client.flush(5.0)
        told = client.statistics()
        assert (told.points_found, told.points_acked) == (25, 25) and balanced(told)
        add(client, 5)
    assert len(second.bodies) == 4
    assert first.bodies[0] == second.bodies[0], "the same bytes, so the server keeps one"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_broke_is_told(tmp_path: Path) -> None:
    client = writer(Answering(), spool_directory=tmp_path, spool_bytes_max=8 << 20)
    add(client, 10)
    with pytest.raises(ClientError, match="IndexError"):
        client.flush(5.0)
    with pytest.raises(ClientError, match="IndexError"):
        add(client, 1)
    with pytest.raises(ClientError, match="IndexError"):
        client.close()
    with writer(Answering(TAKEN), spool_directory=tmp_path, spool_bytes_max=8 << 20) as again:
        assert again.flush(5.0) and again.statistics().points_acked == 10


def test_many_threads_lose_no_point() -> None:
    transport = Answering(TAKEN)
    with writer(transport) as client:
        threads = [threading.Thread(target=add, args=(client, 500)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(10.0)
        assert client.statistics().points_acked == 4000


@pytest.mark.parametrize(
    "limits",
    [
        {"batch_points_max": 0},
        {"batch_bytes_max": 9 << 20},
        {"queue_bytes_max": 1 << 20},
        {"spool_directory": Path("x"), "spool_bytes_max": 1 << 20},
    ],
)
def test_limits_that_cannot_work_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        WriterConfig(**limits)


def test_it_imports_nothing_of_the_server() -> None:
    code = (
        "import sys, sluiceway.client;"
        "print(sorted(m for m in sys.modules if m.startswith('sluiceway.')"
        " and not m.startswith('sluiceway.client')),"
        " sorted({'numpy', 'asyncio', 'msgspec', 'zstandard'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "['sluiceway.clock'] []", done.stderr
