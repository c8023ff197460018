"""Questions to the server: PromQL, series, ledger, cardinality.

Invariant: an answer is never longer than `answer_bytes_max`, and no call takes longer than
`timeout_s` and one request: "later" is asked again within it, a refusal raised with its stable id.
"""

import json
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from sluiceway.client.delivery import LATER, STABLE_ID
from sluiceway.client.errors import ClientError, Refused, Unavailable
from sluiceway.client.retry import RetryLimits, pause_s, retry_after_s
from sluiceway.client.transport import HttpTransport, Reply, Transport
from sluiceway.clock import Clock, SystemClock, jitter

Json = dict[str, Any]
Parameters = Mapping[str, str | Sequence[str]]
FORM = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "sluiceway-client"}
FAILURE_BYTES_SHOWN = 500


@dataclass(frozen=True)
class ReaderConfig:
    """Limits of a question."""

    answer_bytes_max: int = 64 << 20
    timeout_s: float = 60.0
    """Of one request, and of asking again while the server says "later"."""
    retry: RetryLimits = field(default_factory=RetryLimits)


class Reader:
    """Asks. Any thread may call; each call has a connection of its own."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        config: ReaderConfig | None = None,
        *,
        tenant: str | None = None,
        tls: ssl.SSLContext | None = None,
        transport: Callable[[], Transport] | None = None,
        clock: Clock | None = None,
        source: random.Random | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`tenant`: whose series, for a key that may read several tenants'."""
        config = config or ReaderConfig()
        self._config = config
        self._clock, self._random = clock or SystemClock(), source or jitter()
        self._sleep = sleep
        self._headers = dict(FORM) if tenant is None else {**FORM, "X-Scope-OrgID": tenant}
        self._transport = transport or (lambda: HttpTransport(url, key, config.timeout_s, tls))

    def query(self, text: str, time_s: float | None = None) -> list[Json]:
        """An instant query's result: series with `value` each. A scalar or text: [seconds, text].

        This and the others raise: Refused, Unavailable, AnswerTooLarge.
        """
        moment = {} if time_s is None else {"time": _seconds(time_s)}
        result: list[Json] = self.get("query", {"query": text, **moment})["result"]
        return result

    def query_range(self, text: str, start_s: float, end_s: float, step_s: float) -> list[Json]:
        """A range query's result: series with `values` each."""
        between = {"start": _seconds(start_s), "end": _seconds(end_s), "step": f"{step_s:g}"}
        result: list[Json] = self.get("query_range", {"query": text, **between})["result"]
        return result

    def series(
        self, matchers: Sequence[str], start_s: float | None = None, end_s: float | None = None
    ) -> list[dict[str, str]]:
        """The labels of the series that any of the matchers selects."""
        between = {"start": start_s, "end": end_s}
        named = {name: _seconds(at) for name, at in between.items() if at is not None}
        found: list[dict[str, str]] = self.get("series", {"match[]": list(matchers), **named})
        return found

    def ledger(self) -> Json:
        """What became of the points received: the tenant's row, or all rows for a key of scope
        admin, and whether they balance."""
        told: Json = self.get("ledger")
        return told

    def cardinality(self, parameters: Parameters | None = None) -> Json:
        """The tenant's series by metric and label."""
        told: Json = self.get("cardinality", parameters)
        return told

    def get(self, path: str, parameters: Parameters | None = None) -> Any:
        """`data` of the answer of `/api/v1/<path>`."""
        return self.request("GET", f"/api/v1/{path}", parameters)

    def request(
        self,
        method: str,
        path: str,
        parameters: Parameters | None = None,
        body: bytes = b"",
        kind: str | None = None,
    ) -> Any:
        """`data` of any path's answer, the admin API's too; None where it has none."""
        target = f"{path}?{urlencode(parameters, doseq=True)}" if parameters else path
        headers = self._headers if kind is None else {**self._headers, "Content-Type": kind}
        until_s = self._clock.monotonic_s() + self._config.timeout_s
        attempt = 0
        while True:
            asked_s = 0.0
            try:
                reply = self._send(method, target, body, headers)
            except Unavailable as error:
                failure: ClientError = error
            else:
                header = reply.headers.get("retry-after")
                if reply.status not in LATER or header is None:
                    return _data(reply)
                limits = self._config.retry
                asked_s = retry_after_s(header, self._clock.now_ms(), limits.retry_after_s_max)
                failure = Unavailable(f"{reply.status}: {_words(reply)}")
            pause = self._pause_s(attempt, asked_s)
            attempt += 1
            if self._clock.monotonic_s() + pause >= until_s:
                raise failure
            self._sleep(pause)

    def _send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Reply:
        transport = self._transport()
        try:
            return transport.send(method, target, body, headers, self._config.answer_bytes_max)
        finally:
            transport.close()

    def _pause_s(self, attempt: int, asked_s: float) -> float:
        limits = self._config.retry
        return pause_s(attempt, asked_s, limits.backoff_base_s, limits.backoff_s_max, self._random)


def _seconds(time_s: float) -> str:
    return f"{time_s:.3f}"


def _words(reply: Reply) -> str:
    try:
        return str(json.loads(reply.body)["error"])
    except (ValueError, KeyError, TypeError):
        return reply.body.decode("utf-8", "replace")[:FAILURE_BYTES_SHOWN]


def _data(reply: Reply) -> Any:
    if 200 <= reply.status < 300:
        told = json.loads(reply.body) if reply.body.strip() else None
        return told.get("data", told) if isinstance(told, dict) else told
    words = _words(reply)
    if reply.status >= 500:
        raise Unavailable(f"{reply.status}: {words}")
    found = STABLE_ID.search(words)
    stable_id = found[1] if found else ""
    raise Refused(reply.status, stable_id, STABLE_ID.sub("", words).strip())
