"""The evaluate protocol between machines: a gate before a shard's socket, links behind it.

Invariant: not a byte goes through before both sides have shown that they know the secret; either
side's end is the other's at once, so that a query that is withdrawn stops its shard.
Layout: docs/formats/shard_link.md.
"""

import asyncio
import contextlib
import hmac
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sluiceway.telemetry import Metrics

MAGIC = b"SWLK"
VERSION = 1
HEAD = MAGIC + bytes([VERSION, 0, 0, 0])
NONCE_BYTES = PROOF_BYTES = 32
SECRET_BYTES_MIN = 32
HANDSHAKE_S_MAX = 5.0
CONNECTIONS_MAX = 128
"""Of one gate, half of what the shard serves: the other half is its own machine's. A query role
keeps a connection for each query that runs."""
PIECE_BYTES = 256 << 10
STALL_S_MAX = 30.0
"""A peer that takes nothing for so long is gone."""
KEEPALIVE_S, KEEPALIVE_TRIES = 15, 4
"""A machine that went without a word is noticed after a minute, also while nothing is due."""
IDLE_S = 0.5
"""Without a byte behind an answer's last: its pieces come without a pause."""
REST_S = 10.0
"""After a shard was silent, queries do not wait for it again until a look finds it."""
LEAVE_LOOK_S = 0.1
UNKNOWN = "nobody has said yet that it answers for this partition"
log = structlog.get_logger()

Nonce = Callable[[int], bytes]


class LinkRefused(Exception):
    """The other side is not of this cluster, or speaks another version."""


def read_secret(path: Path) -> bytes:
    """The cluster's secret. Raises: OSError, ValueError (too short, or others may read it)."""
    if path.stat().st_mode & 0o077:
        raise ValueError(f"{path}: others may read it; chmod 600 it")
    secret = path.read_bytes().strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"{path}: {len(secret)} bytes, a secret has {SECRET_BYTES_MIN} or more")
    return secret


def proof(secret: bytes, word: bytes, gate_nonce: bytes, link_nonce: bytes) -> bytes:
    return hmac.digest(secret, word + gate_nonce + link_nonce, "sha256")


async def meet_link(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes, nonce: bytes
) -> bytes:
    """The gate's half of the handshake but for its proof, which is returned: it says that the
    shard is there too. Raises: LinkRefused, OSError, EOFError."""
    writer.write(HEAD + nonce)
    head = await reader.readexactly(len(HEAD) + NONCE_BYTES + PROOF_BYTES)
    theirs, told = head[len(HEAD) : -PROOF_BYTES], head[-PROOF_BYTES:]
    if not head.startswith(HEAD):
        raise LinkRefused("not a link of this version")
    if not hmac.compare_digest(told, proof(secret, b"link", nonce, theirs)):
        raise LinkRefused("it does not know the secret")
    return proof(secret, b"gate", nonce, theirs)


async def meet_gate(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes, nonce: bytes
) -> None:
    """The link's half. Raises: LinkRefused, OSError, EOFError."""
    head = await reader.readexactly(len(HEAD) + NONCE_BYTES)
    if not head.startswith(HEAD):
        raise LinkRefused("not a gate of this version")
    theirs = head[len(HEAD) :]
    writer.write(HEAD + nonce + proof(secret, b"link", theirs, nonce))
    told = await reader.readexactly(PROOF_BYTES)
    if not hmac.compare_digest(told, proof(secret, b"gate", theirs, nonce)):
        raise LinkRefused("it does not know the secret")


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def watch_peer(writer: asyncio.StreamWriter) -> None:
    """Let the system notice that the other machine is gone."""
    found: socket.socket = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_S),
        ("TCP_KEEPCNT", KEEPALIVE_TRIES - 1),
    ):
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def close(writer: asyncio.StreamWriter) -> None:
    """Close once what was written is sent; a peer that does not take it holds nothing for long."""
    writer.close()
    asyncio.get_running_loop().call_later(STALL_S_MAX, writer.transport.abort)


@dataclass(slots=True, eq=False)
class Talk:
    """What goes on over one connection of a link, as far as it can be told without reading it."""

    gate: asyncio.StreamWriter
    asked: bool = False
    """The last word was the reader's: an answer is due."""
    moving: int = 0
    heard_s: float = 0.0
    begun: bool = False
    leaving: bool = False
    """The shard is elsewhere by now: no other question is to be asked here."""

    def ends(self) -> bool:
        """May the reader's next word, a question, end the connection instead of being asked? Only
        of one that was used before: its reader asks again over another."""
        return self.leaving and self.begun and not self.asked

    def idle(self, now_s: float) -> bool:
        """Nothing is asked, and no part of an answer is under way."""
        return not self.asked and not self.moving and now_s - self.heard_s > IDLE_S


Moved = Callable[[int], None]
"""Told of bytes that were handed on."""


def unmeasured(moved_bytes: int) -> None:
    """Nobody counts them here."""


async def relay(
    asking: Streams, gate: Streams, talk: Talk | None = None, moved: Moved = unmeasured
) -> None:
    """Hand on bytes both ways until either side ends, or takes nothing; both are closed then."""
    talk = talk or Talk(gate[1])
    clock = asyncio.get_running_loop().time

    async def hand_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: bool
    ) -> None:
        while piece := await reader.read(PIECE_BYTES):
            if asked and talk.ends():
                return
            talk.asked, talk.begun, talk.heard_s = asked, True, clock()
            talk.moving += 1
            writer.write(piece)
            moved(len(piece))
            async with asyncio.timeout(STALL_S_MAX):
                await writer.drain()
            talk.moving -= 1
            talk.heard_s = clock()

    one, other = asking, gate
    ways = [
        asyncio.ensure_future(hand_on(one[0], other[1], True)),
        asyncio.ensure_future(hand_on(other[0], one[1], False)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        with contextlib.suppress(OSError):
            await asyncio.gather(*ways, return_exceptions=True)
        for _, writer in (one, other):
            close(writer)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What both sides of a link share: the secret, and where nonces come from."""

    secret: bytes
    nonce: Nonce


class ShardGate:
    """Listens for links and hands them to the shard's own socket."""

    def __init__(
        self,
        cluster: Cluster,
        evaluate_socket: Path,
        metrics: Metrics,
        tls: Any = None,
        moved: Moved = unmeasured,
    ) -> None:
        """`tls`: an ssl.SSLContext, or None. `moved` is told on the gate's loop."""
        self._moved = moved
        self._cluster = cluster
        self._socket = str(evaluate_socket)
        self._metrics = metrics
        self._tls: ssl.SSLContext | None = tls
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self, host: str, port: int) -> int:
        """Listen; the port. Raises: OSError."""
        limits: dict[str, Any] = {"limit": PIECE_BYTES}
        if self._tls is not None:
            limits |= {"ssl_handshake_timeout": HANDSHAKE_S_MAX}
        self._server = await asyncio.start_server(self._serve, host, port, ssl=self._tls, **limits)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def links(self) -> int:
        """Connections that are open. Any thread."""
        return self._open

    def reaches_shard(self) -> bool:
        """Does somebody listen behind it? Any thread."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(self._socket) == 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open += 1
        try:
            watch_peer(writer)
            async with asyncio.timeout(HANDSHAKE_S_MAX):
                nonce = self._cluster.nonce(NONCE_BYTES)
                own_proof = await meet_link(reader, writer, self._cluster.secret, nonce)
            shard = await asyncio.open_unix_connection(self._socket, limit=PIECE_BYTES)
            writer.write(own_proof)
            await relay((reader, writer), shard, moved=self._moved)
        except (LinkRefused, TimeoutError, EOFError) as error:
            self._metrics.count("sluiceway_shard_links_refused_total")
            peer = writer.get_extra_info("peername")
            log.warning("shard_link_refused", address=str(peer), why=str(error) or "too slow")
        except OSError as error:
            log.warning("shard_link_broken", error=str(error))
        finally:
            self._open -= 1
            close(writer)


class ShardLink:
    """A local socket that stands for a shard elsewhere. Its loop's, but for `failure`."""

    def __init__(
        self, cluster: Cluster, name: str, address: tuple[str, int] | None, tls: Any = None
    ) -> None:
        """`address`: None until `point_at` is told one."""
        self._cluster = cluster
        self.name = name
        self._address = address
        self._tls: ssl.SSLContext | None = tls
        self._server: asyncio.Server | None = None
        self._rests_until_s = 0.0
        self._talks: set[Talk] = set()
        self._leaving: asyncio.Task[None] | None = None
        self.failure: str | None = None if address else UNKNOWN
        """Why the last connection failed; None where it did not."""

    async def start(self, path: Path) -> None:
        """Listen at `path`. Raises: OSError."""
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path, limit=PIECE_BYTES)
        path.chmod(0o600)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._leaving is not None:
            self._leaving.cancel()

    def point_at(self, address: tuple[str, int]) -> None:
        """The shard is there from now on. Questions that are asked already are answered where
        they were asked; connections without one are closed, and readers make new ones."""
        if address == self._address:
            return
        self._address, self._rests_until_s, self.failure = address, 0.0, None
        log.info("shard_found", shard=self.name, address=f"{address[0]}:{address[1]}")
        if self._leaving is not None:
            self._leaving.cancel()
        self._leaving = asyncio.ensure_future(self._leave(set(self._talks)))

    async def _leave(self, talks: set[Talk]) -> None:
        clock = asyncio.get_running_loop().time
        for talk in talks:
            talk.leaving = True
        while talks := talks & self._talks:
            for talk in talks:
                if talk.idle(clock()):
                    talk.gate.transport.abort()
            await asyncio.sleep(LEAVE_LOOK_S)

    async def look(self) -> None:
        """Is the shard there? `failure` says. Where it is silent, what waits for it is let go:
        its answer lacks the shard and says so, and does not wait for its deadline."""
        gate = await self._reach()
        if gate is not None:
            close(gate[1])
        elif asyncio.get_running_loop().time() < self._rests_until_s:
            for talk in tuple(self._talks):
                talk.gate.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        resting = asyncio.get_running_loop().time() < self._rests_until_s
        gate = None if resting else await self._reach()
        if gate is None:
            writer.close()
            return
        talk = Talk(gate[1])
        self._talks.add(talk)
        try:
            # Cancelled: the process ends, and so does this connection's task; asyncio would
            # write a traceback of it into the log.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await relay((reader, writer), gate, talk)
        finally:
            self._talks.discard(talk)

    async def _reach(self) -> Streams | None:
        """A connection that has shaken hands; None, and `failure`, where there is none."""
        gate: Streams | None = None
        address = self._address
        if address is None:
            return None
        try:
            async with asyncio.timeout(HANDSHAKE_S_MAX):
                gate = await asyncio.open_connection(*address, ssl=self._tls, limit=PIECE_BYTES)
                watch_peer(gate[1])
                await meet_gate(*gate, self._cluster.secret, self._cluster.nonce(NONCE_BYTES))
        except (LinkRefused, TimeoutError, EOFError, OSError) as error:
            if gate is not None:
                gate[1].transport.abort()
            if address != self._address:
                return await self._reach()  # it has moved meanwhile
            if isinstance(error, TimeoutError):
                self._rests_until_s = asyncio.get_running_loop().time() + REST_S
            self._told(f"{type(error).__name__}: {error}" if str(error) else "no answer in time")
            return None
        self.failure, self._rests_until_s = None, 0.0
        return gate

    def _told(self, failure: str) -> None:
        if self.failure is None:
            log.warning("shard_not_reached", shard=self.name, error=failure)
        self.failure = failure
