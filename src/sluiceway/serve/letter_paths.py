"""The paths of dead letters: browse, count, replay. The write side's, for it holds the manifest.

Invariant: a tenant sees and replays its own letters; another's need a key of scope admin. Files are
read on a thread of their own, one request at a time, never on the loop.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs

import msgspec

from sluiceway.clock import Clock
from sluiceway.deadletters.browsing import Filter, browse, count
from sluiceway.deadletters.interface import DeadLetters, Selection
from sluiceway.deadletters.unreadable import UnreadableBodies
from sluiceway.errors import Overloaded, TenantFault
from sluiceway.gateway.app import JSON, PRINCIPAL, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Scope
from sluiceway.governance.letter_room import bytes_held, bytes_max
from sluiceway.governance.policy import Policy
from sluiceway.governance.reading import Reading
from sluiceway.ledger.statement import Statement
from sluiceway.services.replays import Replays
from sluiceway.tenants.model import Principal
from sluiceway.tiers.manifest import Replay, Version

PREFIX = "/api/v1/deadletters"
LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
WAITING_MAX = 8
FIELDS_MAX = 32
EVERY_TENANT = "*"
BYTES = (
    (b"content-type", b"application/octet-stream"),
    (b"content-disposition", b"attachment"),
    (b"x-content-type-options", b"nosniff"),
)
TIME_MIN_MS, TIME_MAX_MS = -(1 << 63), (1 << 63) - 1
REASONS = (
    "active_series",
    "new_series_per_hour",
    "fold_full",
    "fold_late",
    "fold_histogram",
)
T = TypeVar("T")


class LetterShard(Protocol):
    """What these paths ask of a shard. Thread-safe; may wait for its locks."""

    def version(self) -> Version: ...
    def statement(self) -> Statement: ...
    def governance(self) -> Reading: ...
    def policy(self) -> tuple[int, Policy]: ...


class LetterPaths:
    """Handlers by path, for the gateway's application."""

    def __init__(
        self,
        shard: LetterShard,
        letters: DeadLetters,
        replays: Replays,
        keyring: Keyring,
        clock: Clock,
        unreadable: UnreadableBodies,
    ) -> None:
        self._unreadable = unreadable
        self._shard = shard
        self._letters = letters
        self._replays = replays
        self._keyring = keyring
        self._clock = clock
        self._reader = ThreadPoolExecutor(1, "letters")
        self._waiting = 0

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {
            PREFIX: (self.browse, "read"),
            f"{PREFIX}/count": (self.count, "read"),
            f"{PREFIX}/bodies": (self.bodies, "read"),
            f"{PREFIX}/replay": (self.replay, None),
        }

    async def browse(self, scope: Scope) -> Answer:
        """Letters that nobody has taken, oldest first, page by page."""
        asked = Asked(scope, scope[PRINCIPAL])
        only_get(scope)
        limit, cursor = asked.limit(), asked.text("cursor")
        replays, wanted = self._replays.all(), asked.filter()
        page = await self._read(
            lambda: browse(self._letters, replays, asked.selection(), wanted, limit, cursor)
        )
        return success(page)

    async def count(self, scope: Scope) -> Answer:
        """How many by reason, metric, budget and policy version; the quota and what passed it."""
        asked = Asked(scope, scope[PRINCIPAL])
        only_get(scope)
        replays, wanted = self._replays.all(), asked.filter()

        def told() -> dict[str, Any]:
            counts = count(self._letters, replays, asked.selection(), wanted)
            return {**msgspec.structs.asdict(counts), "tenants": self._quotas(asked.tenant)}

        return success(await self._read(told))

    async def bodies(self, scope: Scope) -> Answer:
        """Bodies that no decoder could read, the newest first; with `number`, the bytes of one."""
        asked = Asked(scope, scope[PRINCIPAL])
        only_get(scope)
        number = asked.text("number")
        if number is None:
            limit = asked.limit()
            told = await self._read(lambda: self._unreadable.told(asked.tenant, limit))
            passed_over = self._unreadable.passed_over
            return success({"bodies": told, "passed_over": passed_over})
        if not (number.isascii() and number.isdigit() and len(number) <= 12):
            raise bad("number", "a whole number")
        body = await self._read(lambda: self._unreadable.read(asked.tenant, int(number)))
        return Answer(200, BYTES, body)

    async def replay(self, scope: Scope) -> Answer:
        """GET: the tenant's replays and how far they are. POST: begin one."""
        headers = dict(scope["headers"])
        if scope["method"] == "GET":
            asked = Asked(scope, self._keyring.authorize(headers, "read"))
            own = [r for r in self._replays.all() if asked.tenant in (None, r.tenant)]
            return success([self._told(replay) for replay in own])
        if scope["method"] != "POST":
            raise TenantFault(405, "sluiceway-method", "only GET and POST are taken here")
        try:
            principal = self._keyring.authorize(headers, "write")
        except TenantFault as fault:
            if fault.status != 403:
                raise
            principal = self._keyring.authorize(headers, "admin")
        asked = Asked(scope, principal)
        if asked.tenant is None:
            raise bad("tenant", "one tenant's letters are replayed at a time")
        selection = asked.selection()
        replay = await self._replays.ask(
            asked.tenant, selection.reason, selection.since_ms, selection.until_ms
        )
        return success(self._told(replay))

    def _told(self, replay: Replay) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.structs.asdict(replay)
        return {**told, "done": replay.done, "failure": self._replays.failure(replay)}

    def _quotas(self, tenant: str | None) -> dict[str, Any]:
        """By tenant: the room for letters, what is in it, what there was no room for."""
        _, policy = self._shard.policy()
        quota, reading = policy.dead_letters, self._shard.governance()
        now_ms = self._clock.now_ms()
        return {
            name: {
                "bytes_held": bytes_held(reading, quota, name, now_ms),
                "bytes_max": bytes_max(quota, name),
                "days": quota.days,
                "dead_lettered_points": outcomes.dead_lettered,
                "discarded_points": outcomes.discarded,
            }
            for name, outcomes in self._shard.statement().tenants.items()
            if tenant in (None, name)
        }

    async def _read(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Overloaded(1.0, "too many requests for dead letters at once")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)


class Asked:
    """One request's parameters, checked. `tenant` None: every tenant, for admins."""

    def __init__(self, scope: Scope, principal: Principal) -> None:
        try:
            query = scope["query_string"].decode("latin-1")
            self._fields = parse_qs(query, keep_blank_values=True, max_num_fields=FIELDS_MAX)
        except ValueError:
            raise bad("query", "too many parameters") from None
        named = self.text("tenant")
        foreign = named is not None and named != principal.tenant
        if foreign and "admin" not in principal.scopes:
            words = "another tenant's letters need a key of scope admin"
            raise TenantFault(403, "sluiceway-key-scope", words)
        self.tenant = None if named == EVERY_TENANT else named or principal.tenant

    def text(self, name: str) -> str | None:
        values = self._fields.get(name)
        return values[-1] if values and values[-1] else None

    def limit(self) -> int:
        text = self.text("limit")
        if text is None:
            return LIMIT_DEFAULT
        if not (
            text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= LIMIT_MAX
        ):
            raise bad("limit", f"a whole number from 1 to {LIMIT_MAX}")
        return int(text)

    def selection(self) -> Selection:
        reason = self.text("reason")
        if reason is not None and reason not in REASONS:
            raise bad("reason", f"one of {', '.join(REASONS)}")
        since_ms = self._time_ms("since", TIME_MIN_MS)
        until_ms = self._time_ms("until", TIME_MAX_MS)
        return Selection(self.tenant, reason, since_ms, until_ms)

    def filter(self) -> Filter:
        labels = {}
        for text in self._fields.get("label", []):
            name, equals, value = text.partition("=")
            if not (name and equals):
                raise bad("label", "as NAME=VALUE")
            labels[name] = value
        return Filter(self.text("metric"), labels)

    def _time_ms(self, name: str, default: int) -> int:
        """Seconds since 1970, as Prometheus takes them."""
        text = self.text(name)
        if text is None:
            return default
        try:
            time_ms = round(float(text) * 1000)
        except (ValueError, OverflowError):
            raise bad(name, "a time in seconds since 1970") from None
        return min(max(time_ms, TIME_MIN_MS), TIME_MAX_MS)  # it stands in the manifest: an i64


def bad(name: str, words: str) -> TenantFault:
    return TenantFault(400, "sluiceway-deadletters-parameter", f"{name}: {words}")


def only_get(scope: Scope) -> None:
    if scope["method"] != "GET":
        raise TenantFault(405, "sluiceway-method", "only GET is taken here")


def success(data: Any) -> Answer:
    return Answer(200, JSON, msgspec.json.encode({"status": "success", "data": data}))
