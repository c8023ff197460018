"""Questions: capped, asked again while the server says later, refused with an id."""

import http.server
import threading
from collections.abc import Iterator

import pytest

from fakes.answering import Answering, answer
from sluiceway.client import AnswerTooLarge, Reader, ReaderConfig, Refused, Unavailable
from sluiceway.client.transport import HttpTransport
from sluiceway.clock import ManualClock, jitter

VECTOR = answer(200, '{"status":"success","data":{"resultType":"vector","result":[{"metric":{}}]}}')
LATER = answer(503, '{"error":"full (sluiceway-overloaded)"}', retry_after="2")


class Asked:
    """A reader whose time is moved by its own pauses."""

    def __init__(self, *replies: object, timeout_s: float = 10.0) -> None:
        self.clock = ManualClock(0)
        self.transport = Answering(*replies)  # type: ignore[arg-type]
        self.reader = Reader(
            "http://nowhere",
            config=ReaderConfig(timeout_s=timeout_s),
            tenant="acme",
            transport=lambda: self.transport,
            clock=self.clock,
            source=jitter(1),
            sleep=lambda pause_s: self.clock.advance(int(pause_s * 1000) + 1),
        )


def test_later_is_asked_again_within_the_time() -> None:
    asked = Asked(LATER, None, VECTOR)
    assert asked.reader.query("up", 5.0) == [{"metric": {}}]
    assert len(asked.transport.bodies) == 3
    assert asked.clock.monotonic_s() >= 2.0
    assert asked.transport.headers[0]["X-Scope-OrgID"] == "acme"
    endless = Asked(LATER)
    with pytest.raises(Unavailable, match="sluiceway-overloaded"):
        endless.reader.ledger()
    assert 2.0 <= endless.clock.monotonic_s() < 10.0


def test_a_query_past_its_deadline_is_not_asked_again() -> None:
    asked = Asked(answer(503, '{"errorType":"timeout","error":"too slow"}'))
    with pytest.raises(Unavailable, match="too slow"):
        asked.reader.query_range("up", 0.0, 60.0, 15.0)
    assert len(asked.transport.bodies) == 1


def test_a_refusal_has_the_stable_id() -> None:
    asked = Asked(answer(422, '{"error":"too many series (sluiceway-query-series)"}'))
    with pytest.raises(Refused) as refused:
        asked.reader.series(["up"], 0.0, 1.0)
    assert (refused.value.status, refused.value.id) == (422, "sluiceway-query-series")
    assert refused.value.message == "too many series"


class Long(http.server.BaseHTTPRequestHandler):
    """Answers 10,000 bytes; the first request of each connection only, as one that has idled."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        self.wfile.write(b"x" * 10_000)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Long)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answer_past_the_cap_is_not_held(address: str) -> None:
    reader = Reader(address, config=ReaderConfig(answer_bytes_max=9_999))
    with pytest.raises(AnswerTooLarge, match="9999"):
        reader.query("up")


def test_a_kept_connection_that_died_is_opened_anew(address: str) -> None:
    transport = HttpTransport(address, "key", 5.0)
    for _ in range(3):
        assert len(transport.send("GET", "/", b"", {}, 10_000).body) == 10_000
    transport.close()


def test_nobody_there_is_unavailable() -> None:
    reader = Reader("127.0.0.1:1", config=ReaderConfig(timeout_s=0.01))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        reader.query("up")
    with pytest.raises(ValueError, match="URL"):
        HttpTransport("ftp://x", None, 1.0)
    with pytest.raises(ValueError, match="key"):
        HttpTransport("http://x", "a\nb", 1.0)
