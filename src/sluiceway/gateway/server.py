"""The HTTP server: uvicorn's, with limits in front of the application.

Invariant: a connection that does not send a whole head in time, or sends too long a one, is cut
before the application hears of it; the number of connections is bounded. A write that finds no room
is refused from its head, without a task, a scope or a cycle of ASGI: past capacity what a refusal
costs is what is left for those that are admitted. Who comes back before it was told to is answered
later (`held`).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from sluiceway.gateway.doors.interface import CLOSE, Answer
from sluiceway.gateway.held import HELD_S_MAX, Crowd, HeldRefusals
from sluiceway.gateway.limits import GatewayConfig

TLS_CHECK_S = 2.0
TLS_BYE_S_MAX = 0.5
JOINED_BYTES_MAX = 64 * 1024
CONTINUE = b"HTTP/1.1 100"
WRITE_PATHS = (b"/api/v1/write", b"/api/v1/otlp/", b"/v1/")

BACKLOG = 4096
"""Connections that the system keeps for a loop that is behind: past it, a sender's next attempt is
a second later, then three, then seven. The system may allow fewer (`net.core.somaxconn`)."""


ACCEPTS_A_ROUND = 64
"""Connections taken in one round of the loop."""


HEADS_UNASKED = 8
"""Of one round of the loop, where nobody waits: the next ones are looked at before they become
tasks, as all heads of a round are read before the first of them is let in."""


class Round:
    """One round of the loop: uvloop's clock stands between two polls."""

    began_s = 0.0
    heads = 0


class DoorKeeper(Protocol):
    """Asked only while there is a crowd: on every other request's way it costs one comparison."""

    crowd: Crowd

    def refuse_at_once(
        self, target: bytes, headers: list[tuple[bytes, bytes]], round_s: float
    ) -> Answer | None:
        """The answer to a write that its head alone decides, or None: it goes the usual way.
        `round_s`: the same for heads of one round of the loop, as far as is known."""


class Refused:
    """In the place of uvicorn's cycle: the request is answered, its body is not kept."""

    response_complete = True
    disconnected = False
    keep_alive = True
    message_event = asyncio.Event()


REFUSED: Any = Refused()


class HeadWithBody:
    """The transport of one answer that has a body: its head waits for the first piece of the body,
    so that a small answer leaves in one write and its reader wakes once."""

    __slots__ = ("_begun", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._begun = False
        self._head = b""

    def write(self, data: bytes) -> None:
        if not self._begun and not data.startswith(CONTINUE):
            self._begun, self._head = True, data
            return
        if self._head:
            head, self._head = self._head, b""
            if len(data) <= JOINED_BYTES_MAX:
                data = head + data
            else:
                self._transport.write(head)
        self._transport.write(data)

    def close(self) -> None:
        """Also where an answer breaks off behind its head."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def refusal(protocol: HttpToolsProtocol, keeper: DoorKeeper, round_s: float) -> Answer | None:
    """The answer where a head decides it, and its connection can go on behind the body."""
    if (
        not protocol.url.startswith(WRITE_PATHS)
        or protocol.parser.get_method() != b"POST"
        or not (protocol.cycle is None or protocol.cycle.response_complete)
        or protocol.parser.get_http_version() != "1.1"
        or not protocol.parser.should_keep_alive()
    ):
        return None
    return keeper.refuse_at_once(protocol.url, protocol.headers, round_s)


class RefusingProtocol(HttpToolsProtocol):
    """uvicorn's protocol that can answer a request by its head; `plain` is set when it connects."""

    plain: asyncio.Transport
    come_back_s = 0.0
    """On the loop's clock: when a refused client was told to come back."""
    held_answer: Answer | None = None
    in_hold = False
    """Its turn to be let go has not come; its answer may have been told early."""

    def refuse(self, answer: Answer, held: HeldRefusals) -> None:
        self.scope["method"] = "POST"  # says that the head is whole
        self.cycle = REFUSED
        self.flow.pause_reading()
        if self.in_hold:  # sent without waiting for an answer: one turn holds a connection
            return self._tell(answer)
        self.held_answer, self.in_hold = answer, True
        if self.loop.time() < self.come_back_s:
            held.hold(self, self.loop)
        else:
            self.loop.call_later(held.spread_s(), self.let_go)

    def _tell(self, answer: Answer) -> None:
        self.come_back_s = self.loop.time() + retry_after_s(answer)
        self.plain.write(whole(answer, self.server_state.default_headers))

    def let_go(self) -> None:
        self.in_hold = False
        self.tell_held()
        if self.cycle is REFUSED and not self.plain.is_closing():
            self.flow.resume_reading()

    def tell_held(self, more_headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Before anything else is answered: answers go in the order of the requests."""
        answer, self.held_answer = self.held_answer, None
        if answer is not None and not self.plain.is_closing():
            self._tell(Answer(answer.status, answer.headers + more_headers, answer.body))

    def send_400_response(self, msg: str) -> None:
        self.tell_held()
        super().send_400_response(msg)

    def shutdown(self) -> None:
        """The server ends: who is held hears when to come again, not nothing."""
        self.tell_held(CLOSE)
        super().shutdown()
        if self.scheme == "https" and self.plain.is_closing():
            self.loop.call_later(TLS_BYE_S_MAX, self._end_unanswered)

    def _end_unanswered(self) -> None:
        """A TLS connection closes once its client says so too; one that idles in a pool does not
        listen. What is still on its way to a slow reader goes on."""
        if not self.plain.get_write_buffer_size():
            self.plain.abort()


def limited_protocol(
    limits: GatewayConfig, keeper: DoorKeeper | None = None
) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with a deadline and a size limit on heads."""
    held, this_round = None, Round()
    if keeper is not None:
        held = HeldRefusals(keeper.crowd, min(HELD_S_MAX, limits.keep_alive_s / 2))

    class LimitedProtocol(RefusingProtocol):
        head_bytes = 0
        head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # uvloop's transports are asyncio's in all but inheritance.
            self.plain = cast(asyncio.Transport, transport)
            super().connection_made(self.plain)
            if len(self.connections) > limits.connections_max:
                self.transport.abort()
                return
            self.head_timer = self.loop.call_later(limits.header_s_max, self._cut)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.head_timer is not None:
                self.head_timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.parser is not None and self.head_open():
                # A head in pieces: count what came, and wait for the rest only so long.
                self.head_bytes += len(data)
                if self.head_bytes > limits.header_bytes_max:
                    self.send_400_response("The head of this request is too long.")
                elif self.head_timer is None:
                    self.head_timer = self.loop.call_later(limits.header_s_max, self._cut)
            elif self.cycle is REFUSED and self.timeout_keep_alive_task is None:
                # uvicorn's own timer ends with each piece of a body, and nobody waits for this one.
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

        def head_open(self) -> bool:
            """Is a head on its way? uvicorn puts the method into the scope at its end."""
            return self.scope is None or "method" not in self.scope

        def on_headers_complete(self) -> None:
            size = len(self.url)
            for name, value in self.headers:
                size += len(name) + len(value)
            if size > limits.header_bytes_max:
                raise ValueError("head too long")  # the parser's caller answers 400
            self.head_bytes = 0
            if self.head_timer is not None:
                self.head_timer.cancel()
                self.head_timer = None
            if self.held_answer is not None:
                self.tell_held()
            if held is not None and keeper is not None:
                round_s = self.loop.time()
                if round_s != this_round.began_s:
                    this_round.began_s, this_round.heads = round_s, 0
                this_round.heads += 1
                if keeper.crowd.parked_count or this_round.heads > HEADS_UNASKED:
                    answer = refusal(self, keeper, round_s)
                    if answer is not None:
                        return self.refuse(answer, held)
            self.come_back_s = 0.0
            # An ack is a head alone, and so is every answer to HEAD.
            if self.url.startswith(WRITE_PATHS) or self.parser.get_method() == b"HEAD":
                self.transport = self.plain
            else:
                self.transport = cast(asyncio.Transport, HeadWithBody(self.plain))
            super().on_headers_complete()

        def _cut(self) -> None:
            self.head_timer = None
            if self.head_open() and not self.transport.is_closing():
                self.transport.abort()

    return LimitedProtocol


def retry_after_s(answer: Answer) -> float:
    """What an answer says of when to come back; 0 where it says nothing."""
    return next((float(value) for name, value in answer.headers if name == b"retry-after"), 0.0)


def whole(answer: Answer, more_headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """An answer as it goes over the wire."""
    pieces = [STATUS_LINE[answer.status]]
    length = (b"content-length", b"%d" % len(answer.body))
    for name, value in (*more_headers, *answer.headers, length):
        pieces += (name, b": ", value, b"\r\n")
    pieces += (b"\r\n", answer.body)
    return b"".join(pieces)


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the process that wires it owns them.

    Its loop (libuv since 1.45) takes one connection of a listener in each of its rounds, and past
    capacity a round lasts long: each listener is registered several times.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        given = sockets or []
        self._twins = [one.dup() for one in given for _ in range(ACCEPTS_A_ROUND - 1)]
        await super().startup([*given, *self._twins] or None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown([*(sockets or []), *self._twins])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_server(
    app: Callable[..., Awaitable[None]],
    limits: GatewayConfig,
    tls: ssl.SSLContext | None,
    drain_s_max: float,
    keeper: DoorKeeper | None = None,
    **options: Any,
) -> HttpServer:
    """A server that is not listening yet; give `serve` its sockets."""
    config = uvicorn.Config(
        app,
        http=limited_protocol(limits, keeper),
        ws="none",
        lifespan="off",
        interface="asgi3",
        loop="none",
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.keep_alive_s),
        timeout_graceful_shutdown=max(1, int(drain_s_max / 2)),
        ssl_context_factory=None if tls is None else lambda *_: tls,
        **options,
    )
    return HttpServer(config)


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening TCP socket. Raises: OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        words = f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise OSError(error.errno, words) from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def tls_context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 and up; with `client_ca` a client must show a certificate of it.

    Raises: OSError, ssl.SSLError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for file in filter(None, (certificate, key, client_ca)):
        file.open("rb").close()  # the library's own error does not say which one is missing
    context.load_cert_chain(certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsFiles:
    """Certificate and key, loaded again into the same context when the files change."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key = certificate, key
        self.context = tls_context(certificate, key, client_ca)
        self._stamp = self._read_stamp()

    def reload(self) -> bool:
        """Take new files for coming handshakes. Raises: OSError, ssl.SSLError (old ones stay)."""
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return False
        tls_context(self._certificate, self._key, None)  # a bad pair must not reach the live one
        self.context.load_cert_chain(self._certificate, self._key)
        self._stamp = stamp
        return True

    def _read_stamp(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns
