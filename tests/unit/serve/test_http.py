"""The read side's HTTP: one peer, kept connections, withdrawal by going away."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sluiceway.query.api.app import Call, Reply
from sluiceway.serve.http import JOINED_BYTES_MAX, Connection, ReadServer

CONNECTIONS_MAX = 4
WAIT_S_MAX = 30.0


class Asked:
    """An application that remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.withdrawn: list[Call] = []

    def answer(self, call: Call) -> Reply:
        self.calls.append(call)
        if call.path == "/hang":
            wait_for(call.cancel.cancelled)
        if call.path == "/slow":
            time.sleep(0.1)
        if call.path == "/fault":
            raise RuntimeError("a fault of ours")
        if call.path == "/large":
            return Reply(200, b"x" * (JOINED_BYTES_MAX + 1))
        return Reply(503 if call.path == "/busy" else 200, bytes(call.body) or b"{}", retry=True)

    def withdraw(self, call: Call) -> None:
        self.withdrawn.append(call)
        call.cancel.cancel()


class Served:
    """A server on a thread."""

    def __init__(self, path: str) -> None:
        self.path, self.asked = path, Asked()
        self.server = ReadServer(partial(Connection, application=self.asked), path, CONNECTIONS_MAX)
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()

    @contextlib.contextmanager
    def peer(self) -> Iterator["Peer"]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(WAIT_S_MAX)
            connection.connect(self.path)
            yield Peer(connection)


class Peer:
    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.send = connection.sendall
        self._file = connection.makefile("rb")

    def answer(self) -> tuple[int, bytes, bytes]:
        """(status, head in lower case, body)."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline().lower()
            assert line
            head += line
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        return int(head.split()[1]), head, self._file.read(length)

    def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        self.send(request)
        return self.answer()

    def is_cut(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()


def wait_for(condition: Callable[[], object]) -> None:
    ends_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.002)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(str(tmp_path / "r.sock"))
    yield served
    served.server.stop()
    served.thread.join(WAIT_S_MAX)
    assert not served.thread.is_alive()


def test_requests_follow_each_other_on_a_connection(served: Served) -> None:
    assert Path(served.path).stat().st_mode & 0o077 == 0
    with served.peer() as peer:
        status, _head, body = peer.ask(b"GET /a%20b?x=%7B HTTP/1.1\r\nX-Kept: 1\r\n\r\n")
        assert (status, body) == (200, b"{}")
        peer.send(b"POST /busy HTTP/1.1\r\ncontent-length: 4\r\n\r\nab")
        time.sleep(0.02)
        status, head, body = peer.ask(b"cd")
        assert (status, body) == (503, b"abcd")
        assert b"retry-after: 1" in head
        assert len(peer.ask(b"GET /large HTTP/1.1\r\n\r\n")[2]) == JOINED_BYTES_MAX + 1
        assert peer.ask(b"GET /fault HTTP/1.1\r\n\r\n")[0] == 500
    first, second = served.asked.calls[:2]
    assert (first.method, first.path, first.query) == ("GET", "/a b", b"x=%7B")
    assert first.headers == {b"x-kept": b"1"}
    assert second.method == "POST"
    assert not served.asked.withdrawn


def test_who_goes_away_withdraws_the_question(served: Served) -> None:
    def seen_after_s(asked: int) -> float:
        with served.peer() as peer:
            peer.send(b"GET /hang HTTP/1.1\r\n\r\n")
            wait_for(lambda: len(served.asked.calls) > asked)
            assert not served.asked.calls[asked].cancel.cancelled()
            gone_s = time.monotonic()
            peer.close()
            wait_for(served.asked.calls[asked].cancel.cancelled)
            return time.monotonic() - gone_s

    # What a busy machine adds to one try it does not add to each.
    assert any(seen_after_s(asked) < 0.5 for asked in range(4))


def test_who_asks_and_goes_at_once_withdraws_too(served: Served) -> None:
    """The end is seen before, while or after the request is read."""
    for _ in range(200):
        with served.peer() as peer:
            peer.send(b"GET /hang HTTP/1.1\r\n\r\n")
            peer.close()
    wait_for(lambda: all(call.cancel.cancelled() for call in served.asked.calls))
    with served.peer() as peer:
        assert peer.ask(b"GET / HTTP/1.1\r\n\r\n")[0] == 200


def test_what_is_not_a_gateway_is_cut(served: Served) -> None:
    with served.peer() as peer:
        peer.send(b"nonsense\r\n\r\n")
        assert peer.is_cut()
    with served.peer() as peer:
        peer.send(b"GET /hang HTTP/1.1\r\n\r\nGET /hang HTTP/1.1\r\n\r\n")
        assert peer.is_cut()
    assert all(call.cancel.cancelled() for call in served.asked.calls)


def test_connections_past_the_limit_wait_for_an_end(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(served.peer()) for _ in range(2 * CONNECTIONS_MAX)]
        for peer in peers:
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
        wait_for(lambda: len(served.asked.calls) == CONNECTIONS_MAX)
        time.sleep(0.05)
        assert len(served.asked.calls) == CONNECTIONS_MAX
        for peer in peers:  # in the order in which they are accepted
            assert peer.answer()[0] == 200
            peer.close()


def test_descriptors_and_threads_end_with_their_connections(served: Served) -> None:
    def open_now() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = open_now()
    for _ in range(50):
        with served.peer() as peer:
            assert peer.ask(b"GET / HTTP/1.1\r\n\r\n")[0] == 200
            peer.close()
    # What tests before this one left behind may end meanwhile.
    wait_for(lambda: all(now <= then for now, then in zip(open_now(), before, strict=True)))


def test_what_runs_may_end(served: Served) -> None:
    with served.peer() as peer:
        peer.send(b"GET /slow HTTP/1.1\r\n\r\n")
        wait_for(lambda: served.asked.calls)
        served.server.stop()
        assert peer.answer()[0] == 200


def test_what_hangs_does_not_hold_up_the_end(served: Served) -> None:
    with served.peer() as peer:
        peer.send(b"GET /hang HTTP/1.1\r\n\r\n")
        wait_for(lambda: served.asked.calls)
        served.server.stop()
        served.thread.join(WAIT_S_MAX / 2)
        assert not served.thread.is_alive()
        assert served.asked.calls[0].cancel.cancelled()
