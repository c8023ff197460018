"""Dead letters of a real server: browse, count, replay, kill -9 amid a replay; the ledger whole."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fakes.governed import NO_POLICY, at_most, deadletters, put_policy
from fakes.server import Server, remote_write
from sluiceway.governance.policy import LetterQuota, Stage

LETTERS = 15_000
WAIT_S_MAX = 30.0


def now_ms() -> int:
    return int(time.time() * 1000)


def boom(first: int, count: int, time_ms: int) -> list[Any]:
    return [
        ({"__name__": f"boom_{i % 3}", "id": str(i)}, [(time_ms, float(i)), (time_ms + 1, 0.5)])
        for i in range(first, first + count)
    ]


def until(condition: Callable[[], bool], why: str) -> None:
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.01)


def flush(server: Server) -> None:
    assert server.call("POST", "/admin/v1/flush")[0] == 200


def ledger(server: Server) -> Any:
    """The whole ledger, checked: both equations, and the rows on disk one by one."""
    told = server.get("ledger", raw_scan=1)
    assert told["balanced"] and not any(told["flow_gaps"].values()), told
    stock = told["stock"]
    assert stock["block_rows"] + stock["buffer_rows"] == stock["expected_rows"]
    for name, row in told["tenants"].items():
        committed = told["committed"]["tenants"].get(name, {})
        pending = told["pending"]["tenants"][name]
        for key in ("received", "stored", "dead_lettered", "discarded", "duplicate"):
            assert row[key] == committed.get(key, 0) + pending[key]
    return told


def replayed(server: Server, **query: Any) -> Any:
    """A replay, run to its end."""
    number = deadletters(server, "/replay", "POST", **query)["number"]

    def told() -> Any:
        every = deadletters(server, "/replay", tenant="*")
        return next(one for one in every if one["number"] == number)

    until(lambda: bool(told()["done"]), "the replay ends")
    return told()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data"
    put_policy(directory, at_most(10))
    yield directory


def test_a_mixed_load_balances_exactly_also_after_a_restart(directory: Path) -> None:
    t = now_ms()
    good = [({"__name__": "good", "i": str(i)}, [(t, 1.0)]) for i in range(100)]
    bad = [({"__name__": "bad", "x": "y" * 100_000}, [(t, 1.0)])]
    with Server(directory) as server:
        body = remote_write(good)
        for _ in range(3):  # the same batch three times
            assert server.call("POST", "/api/v1/write", body)[0] == 204
        assert server.write([*good[:1], *bad]) == 400
        assert server.write(boom(0, 50, t)) == 204
        assert server.call("POST", "/api/v1/write", b"no protobuf")[0] == 400
        expected = {"received": 302 + 100, "stored": 101 + 20, "dead_lettered": 80}
        expected |= {"duplicate": 200, "discarded": 0, "folded": 0}

        def row() -> Any:
            told = ledger(server)
            own = told["tenants"]["default"]
            assert sum(own["rejected"].values()) == 1
            return told, {name: own[name] for name in expected}

        until(lambda: row()[1] == expected, "everything is applied")
        assert row()[0]["pending"]["tenants"]["default"]["received"] == expected["received"]
        flush(server)
        told, counts = row()
        assert counts == expected
        assert told["pending"]["tenants"]["default"]["received"] == 0
        metrics = server.metrics()
        for name, value in expected.items():
            labels = f'{{tenant="default",outcome="{name}"}}'
            assert metrics[f"sluiceway_tenant_points_total{labels}"] == value
        assert metrics['sluiceway_ledger_gap_points{equation="flow"}'] == 0
        assert metrics['sluiceway_ledger_gap_points{equation="stock"}'] == 0
        assert server.write([({"__name__": "late"}, [(t, 1.0)])]) == 204
        server.kill()
        server.start()
        expected["received"] += 1
        expected["stored"] += 1
        until(lambda: row()[1] == expected, "the same after kill -9")
        server.stop()
        server.start()
        assert row()[1] == expected


def test_letters_are_browsed_counted_and_told_by_the_command(directory: Path) -> None:
    t = now_ms()
    with Server(directory) as server:
        assert server.write(boom(0, 40, t)) == 204
        flush(server)
        page = deadletters(server, limit=7)
        ids = [letter["labels"]["id"] for letter in page["letters"]]
        while page["cursor"] is not None:
            page = deadletters(server, limit=7, cursor=page["cursor"])
            ids += [letter["labels"]["id"] for letter in page["letters"]]
        assert ids == [str(i) for i in range(10, 40)]
        of_one = deadletters(server, metric="boom_1")["letters"]
        assert {letter["labels"]["__name__"] for letter in of_one} == {"boom_1"}
        assert len(deadletters(server, label="id=17")["letters"]) == 1
        assert deadletters(server, until=t / 1000 - 60)["letters"] == []
        assert deadletters(server, reason="new_series_per_hour")["letters"] == []
        counts = deadletters(server, "/count")
        assert (counts["letters"], counts["points"], counts["complete"]) == (30, 60, True)
        assert counts["by_reason"] == {"active_series": 30}
        assert counts["by_metric"] == {"boom_0": 10, "boom_1": 10, "boom_2": 10}
        assert counts["by_policy_version"] == {"1": 30}
        quota = counts["tenants"]["default"]
        assert 0 < quota["bytes_held"] < quota["bytes_max"] and quota["discarded_points"] == 0
        for wrong in ("limit=0", "limit=x", "reason=no", "since=x", "label=x", "cursor=x"):
            assert server.call("GET", f"/api/v1/deadletters?{wrong}")[0] == 400
        assert server.call("DELETE", "/api/v1/deadletters")[0] == 405

        def command(*words: str) -> str:
            path = os.pathsep.join(p for p in sys.path if p)
            return subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "sluiceway.cli",
                    *words,
                    "--http",
                    f"127.0.0.1:{server.port}",
                ],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            ).stdout

        assert command("deadletters", "list", "--limit", "3").count("boom_") == 3
        assert "30 letters" in command("deadletters", "count")
        assert "balanced" in command("ledger", "--raw-scan")
        told = command("deadletters", "replay")
        assert "sent again: 30 letters of default, 60 points" in told
        assert "of 60 points received of the tenant: 0 taken, 60 refused again" in told


def test_a_replay_under_the_same_budget_makes_each_letter_anew_once(directory: Path) -> None:
    t = now_ms()
    with Server(directory) as server:
        assert server.write(boom(0, 40, t)) == 204
        done = replayed(server)
        assert (done["letters"], done["points"]) == (30, 60)
        flush(server)
        assert deadletters(server, "/count")["letters"] == 30
        told = ledger(server)
        assert told["movements"]["replayed"] == 60
        assert told["tenants"]["default"]["dead_lettered"] == 120
        assert len(server.get("series", **{"match[]": '{__name__=~"boom_.*"}'})) == 10


def test_a_replay_without_room_sends_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """A full quota and a full budget: what is refused again would be discarded."""
    directory, t = tmp_path / "data", now_ms()
    narrow = at_most(10, quota=LetterQuota(3_000))
    put_policy(directory, narrow)
    with Server(directory) as server:
        assert server.write(boom(0, 30, t)) == 204
        number = deadletters(server, "/replay", "POST", since=-1e30, until=1e30)["number"]

        def told() -> Any:
            return next(r for r in deadletters(server, "/replay") if r["number"] == number)

        until(lambda: told()["done"] or told()["failure"], "the replay ends or stands still")
        assert "boom" in told()["failure"] and told()["letters"] == 0
        assert deadletters(server, "/count")["letters"] == 20
        assert ledger(server)["tenants"]["default"]["discarded"] == 0
        server.stop()
        put_policy(directory, msgspec.structs.replace(narrow, stage=Stage.OBSERVE))
        server.start()
        until(lambda: told()["done"], "it goes on by itself")
        assert told()["letters"] == 20
        until(lambda: ledger(server)["tenants"]["default"]["stored"] == 60, "all come in")


def test_after_the_policy_all_letters_come_in_with_every_bit(directory: Path) -> None:
    t = now_ms()
    with Server(directory) as server:
        assert server.write(boom(0, 40, t)) == 204
        server.stop()
        put_policy(directory, NO_POLICY)
        server.start()
        done = replayed(server, reason="active_series", since=t / 1000 - 60)
        assert done["letters"] == 30
        until(lambda: ledger(server)["tenants"]["default"]["stored"] == 80, "all are stored")
        assert deadletters(server)["letters"] == []
        found = server.get("query", query='{__name__=~"boom_.*"}[5m]', time=t / 1000 + 1)["result"]
        assert {
            (int(row["metric"]["id"]), tuple(float(value) for _, value in row["values"]))
            for row in found
        } == {(i, (float(i), 0.5)) for i in range(40)}
        assert replayed(server)["letters"] == 0
        assert ledger(server)["movements"]["replayed"] == 60


def test_kill_amid_a_replay_takes_nothing_twice(directory: Path) -> None:
    t = now_ms()
    with Server(directory) as server:
        for first in range(0, LETTERS, 300):
            assert server.write(boom(first, 300, t)) == 204
        server.stop()
        put_policy(directory, NO_POLICY)
        server.start()
        deadletters(server, "/replay", "POST")
        refused, amid = (LETTERS - 10) * 2, 0
        while stored(server) < 2 * LETTERS:
            before = stored(server)
            until(partial(moved, server, before), "it goes on")
            amid += stored(server) < 2 * LETTERS
            server.kill()
            server.start()
        assert amid > 0, "no kill came in time"
        done = replayed(server)
        until(lambda: stored(server) == 2 * LETTERS, "everything is stored")
        told = ledger(server)
        row = told["tenants"]["default"]
        assert row["dead_lettered"] == refused
        assert row["stored"] == 2 * LETTERS and told["movements"]["superseded"] == 0
        assert row["received"] == row["stored"] + row["dead_lettered"] + row["duplicate"]
        assert told["movements"]["replayed"] == refused
        assert done["points"] in (0, refused)
        assert deadletters(server)["letters"] == []


def moved(server: Server, before: int) -> bool:
    return stored(server) > before


def stored(server: Server) -> int:
    status, body = server.call("GET", "/api/v1/ledger")
    try:
        return int(json.loads(body)["data"]["tenants"]["default"]["stored"])
    except (KeyError, ValueError, http.client.HTTPException):
        assert status in (200, 503)
        return 0
