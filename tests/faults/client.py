"""A client of the real server under faults: sends batches one after the other, resends until it is
told an outcome, and keeps what it was told."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

from tests.faults.kill import HEADERS, START_MS
from tests.faults.oracle import (
    METRIC,
    Batch,
    Ledger,
    Outcome,
    Report,
    found_in_matrix,
    remote_write_body,
)
from tests.faults.server import ServerUnderTest

SERIES = 20
CATCH_UP_S_MAX = 20.0


@dataclass(frozen=True)
class Answer:
    """`status` 0: the connection broke, the outcome is unknown."""

    at_s: float
    status: int
    retry_after: str | None
    took_s: float


class Client(threading.Thread):
    """Pushes until `stop`; a batch without an answer, or told 429 or 503, is sent again."""

    def __init__(self, port: int, ledger: Ledger, batch_points: int = 20, tries: int = 5) -> None:
        super().__init__(daemon=True)
        self.port, self.ledger = port, ledger
        self.batch_points, self.tries = batch_points, tries
        self.answers: list[Answer] = []
        self.pause_s = 0.005
        self._stopping = threading.Event()
        self._connection: HTTPConnection | None = None

    def run(self) -> None:
        while not self._stopping.is_set():
            self.send(self.ledger.new_batch(self.batch_points))
            time.sleep(self.pause_s)

    def stop(self) -> Client:
        self._stopping.set()
        self.join(60)
        return self

    def send(self, batch: Batch) -> None:
        """Up to `tries` times; what is not acked then stays UNKNOWN."""
        for _ in range(self.tries):
            answer = self.send_once(batch)
            if answer.status in (200, 204):
                batch.outcome = Outcome.ACK
                return
            if 400 <= answer.status < 500 and answer.status != 429:
                batch.outcome = Outcome.REJECT
                return
            if self._stopping.wait(0.02):
                return

    def send_once(self, batch: Batch) -> Answer:
        began_s = time.monotonic()
        try:
            if self._connection is None:
                self._connection = HTTPConnection("127.0.0.1", self.port, timeout=40)
            body = remote_write_body(batch.points)
            self._connection.request("POST", "/api/v1/write", body, HEADERS)
            response = self._connection.getresponse()
            response.read()
            status, retry_after = response.status, response.getheader("Retry-After")
        except (OSError, HTTPException):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            status, retry_after = 0, None
        now_s = time.monotonic()
        answer = Answer(now_s, status, retry_after, now_s - began_s)
        self.answers.append(answer)
        return answer

    def statuses(self, from_s: float = 0.0, until_s: float = float("inf")) -> list[int]:
        """What was answered to requests begun in this time."""
        return [
            answer.status
            for answer in self.answers
            if from_s <= answer.at_s - answer.took_s and answer.at_s <= until_s
        ]

    def wait_for_ack(self, after_s: float, within_s: float) -> float:
        """Seconds from `after_s` to the next ack. Fails where it takes longer than `within_s`."""
        while time.monotonic() < after_s + within_s:
            for answer in self.answers:
                if answer.at_s - answer.took_s >= after_s and answer.status == 204:
                    return answer.at_s - after_s
            time.sleep(0.02)
        raise AssertionError(f"no ack within {within_s} s: {self.answers[-3:]}")


def new_ledger(seed: int) -> Ledger:
    return Ledger(START_MS, SERIES, seed=seed)


def caught_up(server: ServerUnderTest) -> list[dict[str, Any]]:
    """Every stored point, through the query API: a range selector over all time. An answer that
    says that it lags is not one yet; `CATCH_UP_S_MAX` later it must not say so."""
    deadline_s = time.monotonic() + CATCH_UP_S_MAX
    at_s = START_MS / 1000 + 3000 * 86_400
    while True:
        answer = server.json("/api/v1/query", query=f"{METRIC}[3650d]", time=f"{at_s:.3f}")
        if not any("lags" in warning for warning in answer.get("warnings", ())):
            result: list[dict[str, Any]] = answer["data"]["result"]
            return result
        assert time.monotonic() < deadline_s, answer["warnings"]


def check(server: ServerUnderTest, ledger: Ledger) -> Report:
    """The oracle, the ledger's equations over a raw scan, and that nothing was stored twice."""
    found = found_in_matrix(caught_up(server))
    report = ledger.check(found)
    assert report.clean, report
    told = server.json("/api/v1/ledger", raw_scan="true")["data"]
    assert told["balanced"], told
    stored = sum(outcomes["stored"] for outcomes in told["tenants"].values())
    assert stored == len(found), f"{stored} stored for {len(found)} points: {told}"
    return report


def must_retry_later(client: Client) -> None:
    """Every 429 and 503 says when to come back."""
    for answer in client.answers:
        if answer.status in (429, 503):
            assert answer.retry_after is not None and int(answer.retry_after) >= 1, answer
