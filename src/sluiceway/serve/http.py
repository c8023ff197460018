"""The read side's HTTP server: on a Unix socket that only this user may open, for one peer.

That peer is the gateway, which has parsed and bounded the client's request and sends one at a
time on a connection. So this is the least that HTTP/1.1 needs, and a connection has a thread that
receives, answers and sends: a small query is over in less time than a loop and a pool of workers
take to hand it to each other.

Invariant: a connection that ends cancels the request that runs on it. The usher, the thread that
accepts connections and watches for their ends, never waits for any of them.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote_to_bytes

import httptools
import structlog

from sluiceway.query.api.app import Call, Reply

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
FAILED = Reply(500, b"", (b"content-type", b"text/plain"))
DRAIN_S_MAX = 1.0
DRAIN_LOOK_S = 0.01
BACKLOG_MAX = 1024
ACCEPT_PAUSE_S = 0.05
"""After an accept that failed, for want of descriptors most likely."""
RECEIVED_BYTES_MAX = 16 * 1024
JOINED_BYTES_MAX = 64 * 1024
"""An answer's body up to this size is copied behind its head, to leave in one piece."""
log = structlog.get_logger()


class Application(Protocol):
    """What answers. Both are called on any thread."""

    def answer(self, call: Call) -> Reply: ...
    def withdraw(self, call: Call) -> None:
        """The answer is not wanted any more: let `answer` return soon."""
        ...


class Served(Protocol):
    """One connection. `serve` runs on its thread, the others on the usher's."""

    @property
    def busy(self) -> bool: ...
    def serve(self) -> None: ...
    def end(self) -> None: ...
    def cut(self) -> None: ...


class Connection:
    """One connection of the gateway, and what its thread does; one request at a time."""

    def __init__(self, peer: socket.socket, application: Application) -> None:
        self._peer = peer
        self._application = application
        self._parser = httptools.HttpRequestParser(self)
        self._call, self._url = Call(), b""
        self._asked: Call | None = None
        self._running: Call | None = None
        self._ended = False

    # The connection's thread
    def serve(self) -> None:
        """Answer requests until the peer goes. Raises: OSError, HttpParserError."""
        while data := self._peer.recv(RECEIVED_BYTES_MAX):
            self._parser.feed_data(data)
            if self._asked is not None:
                call = self._running = self._asked
                if self._ended:  # before `end` could see what runs
                    self._application.withdraw(call)
                self._send(self._answer(call))
                self._running = self._asked = None
                call.body = b""  # not held while the connection is idle

    def _answer(self, call: Call) -> Reply:
        try:
            return self._application.answer(call)
        except Exception:
            log.exception("request_failed")
            return FAILED

    def _send(self, reply: Reply) -> None:
        body = reply.body
        head = (
            STATUS_LINES.get(reply.status) or b"HTTP/1.1 %d -\r\n" % reply.status
        ) + b"%b: %b\r\ncontent-length: %d\r\n%b\r\n" % (
            *reply.content_type,
            len(body),
            b"retry-after: 1\r\n" if reply.retry else b"",
        )
        if len(body) <= JOINED_BYTES_MAX:
            self._peer.sendall(head + body)
        else:
            self._peer.sendall(head)
            self._peer.sendall(body)

    # httptools, on the same thread
    def on_message_begin(self) -> None:
        self._call, self._url = Call(), b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._call.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._call.body += body

    def on_message_complete(self) -> None:
        if self._asked is not None:
            raise ValueError("two requests at once")  # not our gateway
        call = self._asked = self._call
        call.method = self._parser.get_method().decode("ascii", "replace")
        path, _, call.query = self._url.partition(b"?")
        call.path = unquote_to_bytes(path).decode("utf-8", "replace")

    # The usher
    @property
    def busy(self) -> bool:
        return self._running is not None

    def end(self) -> None:
        """The peer is gone."""
        self._ended = True
        running = self._running
        if running is not None:
            self._application.withdraw(running)

    def cut(self) -> None:
        """The peer has to go."""
        self.end()
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)


class ReadServer:
    """Accepts, starts a thread a connection, watches for ends. `serve` makes its thread the usher.

    A connection past `connections_max` waits, unaccepted, for another's end.
    """

    def __init__(
        self, connect: Callable[[socket.socket], Served], socket_path: str, connections_max: int
    ) -> None:
        """Listens when it returns; `connect` makes what serves a peer. Raises: OSError."""
        self._connect = connect
        self._connections_max = connections_max
        self._connections: dict[int, Served] = {}
        self._stopping = False
        self._full = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(socket_path)
        Path(socket_path).chmod(0o600)
        self._listener.listen(BACKLOG_MAX)
        self._listener.setblocking(False)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._bell, select.EPOLLIN)
        self._epoll.register(self._listener, select.EPOLLIN)

    def stop(self) -> None:
        """Any thread, or a signal's handler: let `serve` return."""
        self._stopping = True
        os.eventfd_write(self._bell, 1)

    def serve(self) -> None:
        """Serve until `stop`, then give what runs a little time to end."""
        while not self._stopping:
            self._look(None)
        self._listener.close()
        drained_s = time.monotonic() + DRAIN_S_MAX
        while time.monotonic() < drained_s and any(c.busy for c in self._open()):
            self._look(DRAIN_LOOK_S)
        for connection in self._open():
            connection.cut()

    def _look(self, wait_s: float | None) -> None:
        """Wait for something to happen, and see to it."""
        events = dict(self._epoll.poll(wait_s))
        # Ends first: a number here means the connection it meant until the next one is accepted.
        for number in events:
            connection = self._connections.get(number)
            if connection is not None:
                connection.end()
        if self._bell in events:
            os.eventfd_read(self._bell)
        if self._stopping:
            return
        if self._full and len(self._connections) < self._connections_max:
            self._full = False
            self._epoll.modify(self._listener, select.EPOLLIN)
        if self._listener.fileno() in events:
            self._accept()

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            time.sleep(ACCEPT_PAUSE_S)
            return
        number = peer.fileno()
        connection = self._connect(peer)
        self._connections[number] = connection
        # Its thread reads it; the usher only hears, once, that the other end is gone.
        self._epoll.register(number, select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLONESHOT)
        thread = threading.Thread(
            target=self._run, args=(number, connection, peer), name="read", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError):  # no memory for its stack
            log.warning("connection_refused", connections=len(self._connections))
            del self._connections[number]
            peer.close()
        if len(self._connections) >= self._connections_max:
            # The flag first: whoever ends sees it, and rings, or ended before the next look.
            self._full = True
            self._epoll.modify(self._listener, 0)
            os.eventfd_write(self._bell, 1)

    def _run(self, number: int, connection: Served, peer: socket.socket) -> None:
        """A connection's thread."""
        try:
            connection.serve()
        except (OSError, MemoryError, httptools.HttpParserError, httptools.HttpParserUpgrade):
            pass  # cut: the gateway answers for us
        finally:
            # Before the close: its number may be the next connection's.
            del self._connections[number]
            peer.close()
            if self._full:
                os.eventfd_write(self._bell, 1)

    def _open(self) -> list[Served]:
        return list(self._connections.values())
