"""The way to the read side: requests and answers as bytes over a Unix socket.

Invariant: nothing here looks into a query or an answer. Memory per request is bounded: the body of
a read request by `read_body_bytes_max`, the answer by ANSWER_BUFFER_BYTES_MAX (the socket is not
read while the client is slow). A client that goes away takes its upstream connection with it, which
is how the read side learns that nobody waits.
"""

import asyncio
from collections import deque
from typing import cast

import httptools

from sluiceway.errors import BackendUnavailable, Overloaded, TenantFault
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.receive import Receive, Scope, Send

ANSWER_BUFFER_BYTES_MAX = 512 * 1024
CONNECT_S_MAX = 2.0
WATCH_AFTER_S = 0.02
KEPT_REQUEST = (b"content-type",)
"""What the read side reads of a request's headers, beside the tenant, which is ours to say. What a
client sends besides, its key above all, goes no further."""
BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
# Hop by hop: never handed on.
DROPPED_ANSWER = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"date"})


class Upstream(asyncio.Protocol):
    """One connection to the read side; one request on it at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._paused = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = False
        self.complete = False
        self.closed = False
        self._keeps_alive = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._notify()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
        self._notify()

    # httptools
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered_bytes += len(body)
        if self._buffered_bytes > ANSWER_BUFFER_BYTES_MAX and not self._paused:
            self._paused = True
            assert self._transport is not None
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        # The parser forgets the answer's headers after this call.
        self._keeps_alive = self._parser.should_keep_alive()
        self.complete = True

    # for the proxy
    def start(self, request: bytes) -> None:
        """Send a whole request; the answer is read with `head` and `chunk`."""
        self._parser = httptools.HttpResponseParser(self)
        self.headers, self.head_complete, self.complete = [], False, False
        assert self._transport is not None
        self._transport.write(request)

    async def head(self) -> None:
        """Wait for status and headers. Raises: ConnectionResetError."""
        while not self.head_complete:
            if self.closed:
                raise ConnectionResetError
            await self._wait()

    async def chunk(self) -> bytes:
        """The next bytes of the answer's body, empty at its end. Raises: ConnectionResetError."""
        while not self._chunks:
            if self.complete:
                return b""
            if self.closed:
                raise ConnectionResetError
            await self._wait()
        joined = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered_bytes = 0
        if self._paused:
            self._paused = False
            assert self._transport is not None
            self._transport.resume_reading()
        return joined

    def drained(self) -> bool:
        """Has `chunk` handed out the whole answer?"""
        return self.complete and not self._chunks

    def reusable(self) -> bool:
        return not self.closed and self.complete and self._keeps_alive

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class ReadProxy:
    """Hands requests to the read side. Runs on the loop's thread."""

    def __init__(self, socket_path: str, limits: GatewayConfig) -> None:
        self._socket_path = socket_path
        self._limits = limits
        self._idle: list[Upstream] = []
        self._running = 0
        self._running_by_tenant: dict[str, int] = {}

    async def hand_on(
        self, scope: Scope, receive: Receive, send: Send, tenant: str, more: bytes = b""
    ) -> int:
        """Answer a request with the read side's answer; returns the status. `more`: header lines
        of ours beside the tenant's.

        Raises: TenantFault 413, Overloaded, BackendUnavailable (before anything was sent);
        ConnectionResetError (after).
        """
        self._enter(tenant)
        try:
            headers = dict(scope["headers"])
            has_body = not BODY_HEADERS.isdisjoint(headers)
            body = await self._body(receive) if has_body else b""
            request = _request(scope, headers, body, tenant, more)
            exchange = Exchange(receive)
            try:
                upstream = await self._ask(request, exchange)
                return await self._relay(upstream, send)
            finally:
                exchange.end()
                if exchange.upstream is not None:
                    self._put_back(exchange.upstream)
        finally:
            self._leave(tenant)

    def _enter(self, tenant: str) -> None:
        """Raises: Overloaded, naming the limit."""
        limits, own = self._limits, self._running_by_tenant.get(tenant, 0)
        if self._running >= limits.read_requests_max:
            words = f"gateway.read_requests_max = {limits.read_requests_max}"
            raise Overloaded(1.0, f"too many read requests at once: {words}")
        if own >= limits.tenant_read_requests_max:
            words = f"gateway.tenant_read_requests_max = {limits.tenant_read_requests_max}"
            raise Overloaded(1.0, f"too many read requests of this tenant at once: {words}")
        self._running += 1
        self._running_by_tenant[tenant] = own + 1

    def _leave(self, tenant: str) -> None:
        self._running -= 1
        own = self._running_by_tenant[tenant] - 1
        if own:
            self._running_by_tenant[tenant] = own
        else:
            del self._running_by_tenant[tenant]

    async def fetch(self, path: str, timeout_s: float = 1.0) -> tuple[int, bytes]:
        """(status, body) of a GET of our own. Raises: BackendUnavailable, TimeoutError."""
        request = f"GET {path} HTTP/1.1\r\nhost: read\r\n\r\n".encode()
        exchange = Exchange(None)
        try:
            async with asyncio.timeout(timeout_s):
                upstream = await self._ask(request, exchange)
                pieces = []
                while piece := await upstream.chunk():
                    pieces.append(piece)
                return upstream.status, b"".join(pieces)
        except ConnectionResetError:
            raise BackendUnavailable("the read side went away") from None
        finally:
            if exchange.upstream is not None:
                self._put_back(exchange.upstream)

    async def _body(self, receive: Receive) -> bytes:
        pieces, size = [], 0
        async with asyncio.timeout(self._limits.body_s_max):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionResetError("the client went away")
                piece = message["body"]
                pieces.append(piece)
                size += len(piece)
                if size > self._limits.read_body_bytes_max:
                    limit = self._limits.read_body_bytes_max
                    words = f"a read request's body holds at most {limit} bytes"
                    raise TenantFault(413, "sluiceway-read-body-bytes", words)
                if not message.get("more_body", False):
                    return b"".join(pieces)

    async def _ask(self, request: bytes, exchange: "Exchange") -> Upstream:
        """A connection whose answer's head is there. A kept connection that the read side had
        closed meanwhile is replaced once: reading again does no harm."""
        while self._idle:
            upstream = self._idle.pop()
            if upstream.closed:
                continue
            exchange.upstream = upstream
            upstream.start(request)
            try:
                await upstream.head()
                return upstream
            except ConnectionResetError:
                break
        upstream = await self._connect()
        exchange.upstream = upstream
        if not exchange.gone:
            upstream.start(request)
            try:
                await upstream.head()
                return upstream
            except ConnectionResetError:
                pass
        raise BackendUnavailable("the read side went away")

    async def _connect(self) -> Upstream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                _, upstream = await loop.create_unix_connection(Upstream, self._socket_path)
        except (OSError, TimeoutError):
            raise BackendUnavailable("the read side is not there") from None
        return upstream

    async def _relay(self, upstream: Upstream, send: Send) -> int:
        headers = [pair for pair in upstream.headers if pair[0] not in DROPPED_ANSWER]
        await send({"type": "http.response.start", "status": upstream.status, "headers": headers})
        more = True
        while more:
            piece = await upstream.chunk()
            more = bool(piece) and not upstream.drained()
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        return upstream.status

    def _put_back(self, upstream: Upstream) -> None:
        if upstream.reusable() and len(self._idle) < self._limits.read_connections_idle_max:
            self._idle.append(upstream)
        else:
            upstream.close()

    def close(self) -> None:
        for upstream in self._idle:
            upstream.close()
        self._idle.clear()


class Exchange:
    """One request to the read side: ends the upstream connection when the client ends its own. It
    begins to look after WATCH_AFTER_S: most answers are there before, and what is over needs no
    watching. Requests of our own have no client."""

    def __init__(self, receive: Receive | None) -> None:
        self.upstream: Upstream | None = None
        self.gone = False
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if receive is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(WATCH_AFTER_S, self._start, receive)

    def _start(self, receive: Receive) -> None:
        self._watcher = asyncio.ensure_future(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self.upstream is not None:
            self.upstream.close()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()


def _request(
    scope: Scope, headers: dict[bytes, bytes], body: bytes, tenant: str, more: bytes
) -> bytes:
    target = scope["raw_path"]
    if scope["query_string"]:
        target = target + b"?" + scope["query_string"]
    lines = [
        b"%b %b HTTP/1.1\r\nx-sluiceway-tenant: %b\r\n%b"
        % (scope["method"].encode(), target, tenant.encode(), more)
    ]
    lines += [b"%b: %b\r\n" % (name, headers[name]) for name in KEPT_REQUEST if name in headers]
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    return b"".join((*lines, body))
