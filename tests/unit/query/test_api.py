"""Prometheus' HTTP API over a shard in memory: envelope, errors by type, deadlines, departures."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from sluiceway.clock import SystemClock
from sluiceway.errors import (
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    Overloaded,
    TenantFault,
)
from sluiceway.kernels import EvaluateServer, MemoryShard, ShardClient
from sluiceway.query.api.app import Call, QueryApp, Reply
from sluiceway.query.api.prometheus import Data, PrometheusApi, Request
from sluiceway.query.limits import QueryConfig
from sluiceway.query.promql.engine import Engine
from sluiceway.telemetry import Metrics

SERIES = [
    ({"__name__": "up", "job": job, "http.status": "200"}, [0, 15_000, 30_000], [1.0, 2.0, 3.0])
    for job in ("a", "b")
]
FORM = (b"content-type", b"application/x-www-form-urlencoded; charset=utf-8")


class Api:
    def __init__(self, app: QueryApp, endpoints: dict[str, Any]) -> None:
        self.app, self.endpoints = app, endpoints

    def reply(self, path: str, **parameters: Any) -> Reply:
        query = urlencode(parameters, doseq=True).encode()
        return self.app.answer(Call("GET", f"/api/v1/{path}", query))

    def get(self, path: str, **parameters: Any) -> Any:
        reply = self.reply(path, **parameters)
        assert reply.status == 200, reply.body
        told = json.loads(reply.body)
        assert told["status"] == "success"
        return told["data"]

    def refused(self, path: str, **parameters: Any) -> tuple[int, str, str]:
        reply = self.reply(path, **parameters)
        told = json.loads(reply.body)
        assert told["status"] == "error"
        return reply.status, told["errorType"], told["error"]


def run(tmp_path: Path, story: Callable[[Api], None], limits: QueryConfig | None = None) -> None:
    limits = limits or QueryConfig()
    clock, socket = SystemClock(), str(tmp_path / "e.sock")
    server = EvaluateServer(MemoryShard(SERIES, [("up", 2, "Is it up", "")]), socket)
    server.start()
    client = ShardClient(socket)
    api = PrometheusApi(Engine(client, clock=clock), client, limits, clock)

    try:
        story(Api(QueryApp(api, limits, clock, Metrics()), api.endpoints))
    finally:
        server.stop()


def test_an_answer_of_a_part_says_so(tmp_path: Path) -> None:
    def story(api: Api) -> None:
        clock = SystemClock()
        app = QueryApp(api.app._api, QueryConfig(), clock, Metrics(), part="partition 1 of 4")
        told = json.loads(Api(app, api.endpoints).reply("query", query="count(up)").body)
        assert told["warnings"] == ["partition 1 of 4 alone: the role query answers over all"]
        assert "warnings" not in json.loads(api.reply("query", query="1+1", time="4").body)

    run(tmp_path, story)


def test_what_save_and_test_asks(tmp_path: Path) -> None:
    def story(api: Api) -> None:
        data = api.get("query", query="1+1", time="4")
        assert data == {"resultType": "scalar", "result": [4, "2"]}
        assert "version" in api.get("status/buildinfo")
        assert api.get("query_exemplars", query="up", start="1", end="2") == []
        assert api.get("format_query", query="SUM(a)BY(b)") == "sum by (b) (a)"

    run(tmp_path, story)


def test_queries(tmp_path: Path) -> None:
    def story(api: Api) -> None:
        data = api.get("query", query="sum by (job) (up)", time="30")
        assert data["resultType"] == "vector"
        assert data["result"][0] == {"metric": {"job": "a"}, "value": [30, "3"]}
        data = api.get("query_range", query='up{job="a"}', start=0, end=30, step="15s")
        assert data["result"][0]["values"] == [[0, "1"], [15, "2"], [30, "3"]]
        data = api.get("query", query='up{job="a"}[20s]', time="30")
        assert data["result"][0]["values"] == [[15, "2"], [30, "3"]]
        body = urlencode({"query": "up", "time": 30}).encode()
        reply = api.app.answer(Call("POST", "/api/v1/query", b"", dict([FORM]), body))
        assert len(json.loads(reply.body)["data"]["result"]) == 2

    run(tmp_path, story)


def test_labels(tmp_path: Path) -> None:
    def story(api: Api) -> None:
        assert api.get("labels") == ["__name__", "http.status", "job"]
        assert api.get("label/job/values") == ["a", "b"]
        assert api.get("label/U__http_2e_status/values") == ["200"]
        chosen = ['up{job="a"}', 'up{job="b"}', "up"]
        assert api.get("label/job/values", **{"match[]": chosen[:1]}) == ["a"]
        assert len(api.get("series", **{"match[]": chosen})) == 2
        reply = api.reply("series", limit=1, **{"match[]": "up"})
        assert json.loads(reply.body)["warnings"] == ["results truncated due to limit"]
        metadata = api.get("metadata")
        assert metadata == {"up": [{"type": "gauge", "help": "Is it up", "unit": ""}]}
        stats = api.get("status/tsdb")
        assert stats["headStats"]["numSeries"] == 2

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("path", "parameters", "words"),
    [
        ("query", {"query": "sum("}, 'invalid parameter "query": 1:'),
        ("query", {}, 'invalid parameter "query"'),
        ("query", {"query": "up", "time": "x"}, 'invalid parameter "time": cannot parse'),
        ("query", {"query": "up", "timeout": "0"}, 'invalid parameter "timeout"'),
        ("query", {"query": "up", "lookback_delta": "0"}, 'invalid parameter "lookback_delta"'),
        (
            "query_range",
            {"query": "up", "start": 9, "end": 1, "step": 1},
            "end timestamp must not be before start time",
        ),
        (
            "query_range",
            {"query": "up", "start": 0, "end": 1, "step": 0},
            "zero or negative query resolution step widths",
        ),
        (
            "query_range",
            {"query": "up", "start": 0, "end": 11_001, "step": 1},
            "exceeded maximum resolution of 11,000 points per timeseries",
        ),
        ("series", {}, "no match[] parameter provided"),
        ("series", {"match[]": "up{"}, 'invalid parameter "match[]"'),
        ("series", {"match[]": '{job=~".*"}'}, "at least one non-empty matcher"),
        ("labels", {"limit": "-1"}, 'invalid parameter "limit"'),
        ("label//values", {}, "invalid label name"),
    ],
)
def test_bad_data(tmp_path: Path, path: str, parameters: dict[str, Any], words: str) -> None:
    def story(api: Api) -> None:
        status, kind, message = api.refused(path, **parameters)
        assert (status, kind) == (400, "bad_data")
        assert words in message

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (TenantFault(422, "sluiceway-query-series-limit", "too many"), 422, "execution"),
        (DeadlineExceeded("late"), 503, "timeout"),
        (Cancelled("gone"), 499, "canceled"),
        (Overloaded(1.0, "busy"), 503, "unavailable"),
        (BackendUnavailable("no shard"), 503, "unavailable"),
        (RuntimeError("a bug"), 500, "internal"),
        (MemoryError(), 503, "unavailable"),
    ],
)
def test_errors_by_type(
    tmp_path: Path,
    error: Exception,
    status: int,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Request) -> Data:
        raise error

    def story(api: Api) -> None:
        api.endpoints["query"] = fail
        assert (api.refused("query"))[:2] == (status, kind)

    run(tmp_path, story)


def test_paths_and_methods(tmp_path: Path) -> None:
    def story(api: Api) -> None:
        assert (api.refused("nothing"))[:2] == (404, "not_found")
        assert (api.app.answer(Call("POST", "/api/v1/metadata"))).status == 405
        assert (api.app.answer(Call("GET", "/ready"))).status == 200
        text = (api.app.answer(Call("GET", "/metrics"))).body
        assert b"sluiceway_query_running 0" in text

    run(tmp_path, story)


def wait_for(condition: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.002)


def test_turns(tmp_path: Path) -> None:
    gate = threading.Event()
    started = threading.Semaphore(0)

    def wait(_: Request) -> Data:
        started.release()
        assert gate.wait(60)
        return Data(b"[]")

    def story(api: Api) -> None:
        def told(figure: str) -> bool:
            text = api.app.answer(Call("GET", "/metrics")).body.decode()
            return f"sluiceway_query_{figure}\n" in text

        api.endpoints["query"] = wait
        gone = Call("GET", "/api/v1/query")
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(api.reply, "query")
            assert started.acquire(timeout=30)
            second = pool.submit(api.reply, "query")
            wait_for(lambda: told("waiting 1"))
            third = pool.submit(api.reply, "query", timeout="1")
            fourth = pool.submit(api.app.answer, gone)
            wait_for(lambda: told("waiting 3"))
            assert api.refused("query")[:2] == (503, "unavailable")
            api.app.withdraw(gone)
            assert fourth.result(30).status == 499
            assert json.loads(third.result(30).body)["errorType"] == "timeout"
            assert told("waiting 1")
            assert told("running 1")
            assert api.app.answer(Call("GET", "/ready")).status == 200
            gate.set()
            assert {first.result(30).status, second.result(30).status} == {200}
        assert told("waiting 0")
        assert told("running 0")
        assert api.app.answer(gone).status == 499  # before it asked

    run(tmp_path, story, QueryConfig(concurrency_max=1, waiting_max=3))


def test_a_client_that_goes_cancels_its_query(tmp_path: Path) -> None:
    cancelled = threading.Event()

    def wait(request: Request) -> Data:
        while not request.asker.cancel.cancelled():
            cancelled.wait(0.005)
        cancelled.set()
        raise Cancelled("the client went away")

    def story(api: Api) -> None:
        api.endpoints["query"] = wait
        asked = Call("GET", "/api/v1/query")
        timer = threading.Timer(0.01, api.app.withdraw, (asked,))
        timer.start()
        reply = api.app.answer(asked)
        assert cancelled.is_set()
        assert reply.status == 499

    run(tmp_path, story)


def test_limit_cuts_an_answer_and_says_so(tmp_path: Path) -> None:
    def story(api: Api) -> None:
        times = {"query": {"time": "30"}, "query_range": {"start": "0", "end": "30", "step": "15"}}
        for path, asked in times.items():
            for limit, kept in (("1", 1), ("2", 2), ("0", 2)):
                reply = api.reply(path, query="up", limit=limit, **asked)
                told = json.loads(reply.body)
                assert len(told["data"]["result"]) == kept
                assert ("warnings" in told) == (kept == 1)

    run(tmp_path, story)
