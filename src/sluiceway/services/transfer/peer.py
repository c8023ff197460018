"""A running server (or a Prometheus) as export and import reach it.

Invariant: "later" (503, 429, no answer) is asked again until `patience_s` has passed, or, of a
server that has never answered yet, `FIRST_S_MAX`; a refusal is raised at once, with its stable id.
"""

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec

from sluiceway.client.delivery import LATER, STABLE_ID
from sluiceway.client.errors import Unavailable
from sluiceway.client.retry import RetryLimits, pause_s, retry_after_s
from sluiceway.client.transport import Reply, Transport
from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable

ANSWER_BYTES_MAX = 512 << 20
PATIENCE_S = 600.0
FIRST_S_MAX = 10.0
"""Of a server that nobody has heard of yet: its address may be wrong."""
WORDS_MAX = 500
ID_IN_WORDS = re.compile(r"\((sluiceway-[a-z0-9-]+)\)")


class Refusal(OSError):
    """The server will not do it."""

    def __init__(self, status: int, id: str, words: str, reply: Reply | None = None) -> None:
        super().__init__(f"{status}: {words}")
        self.status, self.id = status, id
        self.reply = reply or Reply(status, {}, words.encode())


@dataclass(frozen=True)
class Peer:
    """Asks one at a time."""

    transport: Transport
    clock: Clock
    random: random.Random
    headers: Mapping[str, str]
    sleep: Callable[[float], None] = time.sleep
    patience_s: float = PATIENCE_S
    retry: RetryLimits = field(default_factory=RetryLimits)

    def send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        first: bool = False,
    ) -> Reply:
        """A good answer. `first`: whether somebody listens there is not known yet. Blocks.
        Raises: Refusal, BackendUnavailable (patience is over)."""
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        began_s = self.clock.monotonic_s()
        until_s = began_s + self.patience_s
        attempt = 0
        while True:
            asked_s, words = 0.0, ""
            try:
                named = {**self.headers, **(headers or {})}
                reply = self.transport.send(method, target, body, named, ANSWER_BYTES_MAX)
            except Unavailable as error:
                words = str(error)
                if first:
                    until_s = min(until_s, began_s + FIRST_S_MAX)
            else:
                if 200 <= reply.status < 300:
                    return reply
                words, first = words_of(reply), False
                until_s = began_s + self.patience_s
                if reply.status not in LATER:
                    found = STABLE_ID.search(words) or ID_IN_WORDS.search(words)
                    raise Refusal(reply.status, found[1] if found else "", words, reply)
                limits, now_ms = self.retry, self.clock.now_ms()
                header = reply.headers.get("retry-after")
                asked_s = retry_after_s(header, now_ms, limits.retry_after_s_max)
            limits = self.retry
            pause = pause_s(
                attempt, asked_s, limits.backoff_base_s, limits.backoff_s_max, self.random
            )
            attempt += 1
            if self.clock.monotonic_s() + pause >= until_s:
                raise BackendUnavailable(words)
            self.sleep(pause)

    def data(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        first: bool = False,
    ) -> Any:
        """`data` of an answer in Prometheus' envelope. Raises: as `send`."""
        return msgspec.json.decode(self.send(method, path, parameters, first=first).body)["data"]


def words_of(reply: Reply) -> str:
    try:
        return str(msgspec.json.decode(reply.body)["error"])[:WORDS_MAX]
    except (msgspec.DecodeError, KeyError, TypeError):
        return reply.body.decode("utf-8", "replace").strip()[:WORDS_MAX]
