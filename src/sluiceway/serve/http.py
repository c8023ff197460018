"""The read side's HTTP server: on a Unix socket that only this user may open, for one peer.

That peer is the gateway, which has parsed and bounded the client's request and sends one at a
time on a connection. So this is the least that HTTP/1.1 needs: a head, a body, one write of the
whole answer, and no task that waits for the client to go.

Invariant: a connection that ends cancels the request that runs on it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import cast
from urllib.parse import unquote_to_bytes

import httptools
import structlog

from sluiceway.query.api.app import Call, Reply

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
FAILED = Reply(500, b"", (b"content-type", b"text/plain"))
DRAIN_S_MAX = 1.0
JOINED_BYTES_MAX = 64 * 1024
"""An answer's body up to this size is copied behind its head, to leave in one piece."""
log = structlog.get_logger()

Answering = Callable[[Call], Awaitable[Reply]]


class ReadConnection(asyncio.Protocol):
    """One connection of the gateway; one request on it at a time."""

    def __init__(self, answering: Answering, connections: "set[ReadConnection]") -> None:
        self._answering = answering
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._running: Call | None = None
        self._task: asyncio.Task[None] | None = None
        self._call = Call()
        self._url = b""

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._running is not None:
            self._running.cancel.cancel()

    def data_received(self, data: bytes) -> None:
        if self._running is not None:
            self.close()  # not our gateway
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    # httptools
    def on_message_begin(self) -> None:
        self._call, self._url = Call(), b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._call.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._call.body += body

    def on_message_complete(self) -> None:
        if self._running is not None:
            self.close()
            return
        call = self._running = self._call
        call.method = self._parser.get_method().decode("ascii", "replace")
        path, _, call.query = self._url.partition(b"?")
        call.path = unquote_to_bytes(path).decode("utf-8", "replace")
        self._task = asyncio.ensure_future(self._answer(call))

    async def _answer(self, call: Call) -> None:
        try:
            reply = await self._answering(call)
        except Exception:
            log.exception("request_failed")
            reply = FAILED
        self._running = None
        if self._transport is None or self._transport.is_closing():
            return
        parts = [
            STATUS_LINES.get(reply.status) or b"HTTP/1.1 %d -\r\n" % reply.status,
            b"%s: %s\r\ncontent-length: %d\r\n" % (*reply.content_type, len(reply.body)),
            b"retry-after: 1\r\n\r\n" if reply.retry else b"\r\n",
        ]
        if len(reply.body) <= JOINED_BYTES_MAX:
            self._transport.write(b"".join((*parts, reply.body)))
        else:
            self._transport.write(b"".join(parts))
            self._transport.write(reply.body)

    @property
    def busy(self) -> bool:
        return self._running is not None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def serve(answering: Answering, socket_path: str, stop: asyncio.Event) -> None:
    """Serve until `stop`, then give what runs a little time to end."""
    connections: set[ReadConnection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(
        lambda: ReadConnection(answering, connections), socket_path, backlog=1024
    )
    Path(socket_path).chmod(0o600)
    await stop.wait()
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S_MAX):
            while any(connection.busy for connection in connections):
                await asyncio.sleep(0.01)
    for connection in list(connections):
        connection.close()
