"""Names the first writer of each explosion, in the shard and in the log, soon after it begins.

The shard knows which record began an explosion, the gateway who sent which request; they have
tickets in common. Who began one that went on over a restart is told by
a file. Invariant: a failure here costs a name, nothing else.
"""

import threading
from typing import Any, Protocol

import msgspec
import structlog

from sluiceway.errors import SluicewayError
from sluiceway.gateway.writers import Writer
from sluiceway.services.first_writers import FirstWriter, FirstWriters

LOOK_S = 1.0
LOOKS_MAX = 3
"""A record may be applied before the gateway has noted who sent it."""
UNKNOWN = FirstWriter(key="", address="", agent="")
"""Sent before this process began, or so long ago that it is forgotten."""
log = structlog.get_logger("governance")


class Explosion(msgspec.Struct, frozen=True):
    """One, as the shard tells it (kernels/src/shard/explosions.rs)."""

    number: int
    tenant: str
    budget: str
    metric: str
    first_ms: int
    series: int
    tags: tuple[tuple[str, int], ...] = ()


class Begun(msgspec.Struct, frozen=True):
    """One that nobody is named for, and the ticket of its first record."""

    explosion: Explosion
    ticket: int | None


class ExplodingShard(Protocol):
    """What is asked of a shard. Thread-safe; may wait for its locks."""

    def explosions(self) -> str: ...
    def name_writer(self, explosion: int, writer: str) -> bool: ...
    def named_explosions(self) -> list[tuple[int, int]]: ...


class Senders(Protocol):
    """What is asked of the gateway. Thread-safe; never blocks."""

    def of(self, ticket: int) -> Writer | None: ...


class Culprits:
    """A thread that looks every `LOOK_S`."""

    def __init__(self, shard: ExplodingShard, senders: Senders, kept: FirstWriters) -> None:
        self._shard = shard
        self._kept = kept
        self._senders = senders
        self._looks: dict[int, int] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sluiceway-culprits", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def step(self) -> int:
        """Name who can be named; returns how many were, the unknown among them."""
        begun = msgspec.json.decode(self._shard.explosions(), type=list[Begun])
        named, looks = 0, {}
        for one in begun:
            explosion, number = one.explosion, one.explosion.number
            triple = (explosion.tenant, explosion.budget, explosion.metric)
            looks[number] = self._looks.get(number, 0) + 1
            found = self._kept.former(triple, explosion.first_ms) or self._sender(one.ticket)
            if found is None and one.ticket is not None and looks[number] < LOOKS_MAX:
                continue
            writer = found or UNKNOWN
            self._shard.name_writer(number, msgspec.json.encode(writer).decode())
            if writer != UNKNOWN:
                self._kept.note(number, triple, explosion.first_ms, writer)
            log.warning("series_explosion", **told(explosion, writer))
            named += 1
        self._looks = looks
        self._kept.look(self._shard.named_explosions())
        return named

    def _sender(self, ticket: int | None) -> FirstWriter | None:
        found = None if ticket is None else self._senders.of(ticket)
        return None if found is None else FirstWriter(found.key, found.address, found.agent)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.step()
            except (SluicewayError, OSError, msgspec.DecodeError) as error:
                log.error("culprits_failed", error=str(error))


def told(explosion: Explosion, writer: FirstWriter) -> dict[str, Any]:
    """The fields of a log line."""
    worst = explosion.tags[0] if explosion.tags else ("", 0)
    return {
        "tenant": explosion.tenant,
        "budget": explosion.budget,
        "metric": explosion.metric,
        "first_ms": explosion.first_ms,
        "series_past_limit": explosion.series,
        "tag": worst[0],
        "tag_values": worst[1],
        "key": writer.key,
        "address": writer.address,
        "agent": writer.agent,
    }
