"""One batch to the server: what an answer means, and when to come back.

Invariant: a batch is done when the server has answered for good: it is durable, or refused. All
else (no answer, 408, 429, 5xx, a key that is not taken) keeps it, and sends the same bytes again.
"""

import random
import re
from dataclasses import dataclass
from enum import Enum

from sluiceway.client.batch import Batch
from sluiceway.client.encode import CONTENT_ENCODINGS
from sluiceway.client.errors import AnswerTooLarge, Refused, Unavailable
from sluiceway.client.retry import RetryLimits, pause_s, retry_after_s
from sluiceway.client.transport import Reply, Transport
from sluiceway.clock import Clock

WRITE_PATH = "/api/v1/write"
REPLY_BYTES_MAX = 64 << 10
WRITE_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": "sluiceway-client",
}
LATER = frozenset({408, 425, 429, 502, 503, 504})
KEY_NOT_TAKEN = frozenset({401, 403})
STABLE_ID = re.compile(r"\((sluiceway-[a-z0-9-]+)\)\s*$")
PARTLY = re.compile(r"^(\d+) of (\d+) points refused \(([^)]*)\)")
REASONS_MAX = 64


class Verdict(Enum):
    TAKEN = "taken"
    REFUSED = "refused"
    LATER = "later"
    HELD = "held"
    """The key is not taken: it may be soon, and nothing is lost meanwhile."""
    FAILED = "failed"
    """The server's own fault, which may be this batch's: tried a number of times."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request."""

    verdict: Verdict
    points_acked: int = 0
    rejected: tuple[tuple[str, int], ...] = ()
    refusal: Refused | None = None
    retry_after: str | None = None
    words: str = ""


def judge(reply: Reply, points: int) -> Outcome:
    """What an answer to a batch of `points` means. Pure."""
    text = reply.body.decode("utf-8", "replace")
    if 200 <= reply.status < 300:
        return Outcome(Verdict.TAKEN, points_acked=points)
    found = STABLE_ID.search(text)
    partly = PARTLY.match(text)
    if reply.status == 400 and partly and not found:
        rejected = _reasons(partly[3])
        missing = int(partly[1]) - sum(count for _, count in rejected)
        if missing > 0:
            rejected = (*rejected, ("other", missing))
        return Outcome(Verdict.TAKEN, points - int(partly[1]), rejected, words=text[:500])
    words = STABLE_ID.sub("", text).strip()[:500]
    refusal = Refused(reply.status, found[1] if found else "", words)
    verdict = Verdict.REFUSED
    if reply.status in LATER:
        verdict = Verdict.LATER
    elif reply.status in KEY_NOT_TAKEN:
        verdict = Verdict.HELD
    elif reply.status >= 500:
        verdict = Verdict.FAILED
    retry_after = reply.headers.get("retry-after")
    return Outcome(verdict, refusal=refusal, retry_after=retry_after, words=str(refusal))


def _reasons(text: str) -> tuple[tuple[str, int], ...]:
    told = []
    for part in text.split(", ")[:REASONS_MAX]:
        reason, _, count = part.partition(": ")
        if count.isdigit():
            told.append((reason, int(count)))
    return tuple(told)


class Delivery:
    """Sends batches, one at a time, and knows how often it failed in a row."""

    def __init__(
        self, transport: Transport, limits: RetryLimits, clock: Clock, source: random.Random
    ) -> None:
        self._transport, self._limits = transport, limits
        self._clock, self._random = clock, source
        self._attempt = 0
        self._failures = 0
        self.next_s = 0.0
        """Monotonic time before which nothing is sent."""

    def send(self, batch: Batch) -> Outcome:
        """Send it once. Blocks as long as the transport does."""
        headers = {**WRITE_HEADERS, "Content-Encoding": CONTENT_ENCODINGS[batch.encoding]}
        try:
            reply = self._transport.send("POST", WRITE_PATH, batch.body, headers, REPLY_BYTES_MAX)
        except Unavailable as error:
            outcome = Outcome(Verdict.LATER, words=str(error))
        except AnswerTooLarge as error:
            # Whoever answers so is no Sluiceway; it may come back.
            outcome = Outcome(Verdict.LATER, words=str(error))
        else:
            outcome = judge(reply, batch.points)
        return self._after(outcome)

    def _after(self, outcome: Outcome) -> Outcome:
        if outcome.verdict is Verdict.FAILED:
            self._failures += 1
            if self._failures >= self._limits.failures_max:
                outcome = Outcome(Verdict.REFUSED, refusal=outcome.refusal, words=outcome.words)
        if outcome.verdict in (Verdict.TAKEN, Verdict.REFUSED):
            self._attempt = self._failures = 0
            self.next_s = 0.0
            return outcome
        limits = self._limits
        now_ms = self._clock.now_ms()
        asked_s = retry_after_s(outcome.retry_after, now_ms, limits.retry_after_s_max)
        pause = pause_s(
            self._attempt, asked_s, limits.backoff_base_s, limits.backoff_s_max, self._random
        )
        self._attempt += 1
        self.next_s = self._clock.monotonic_s() + pause
        return outcome
