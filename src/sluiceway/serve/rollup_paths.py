"""The path of the rollup: how far it is, and telling it to run, to pause, to go on. On the write
side, with the shard.

Invariant: only a key of scope admin comes here; what is answered to a pause is durable.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from sluiceway.errors import Overloaded, TenantFault
from sluiceway.gateway.app import JSON, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Scope
from sluiceway.rollup.status import Status

PATH = "/admin/v1/rollup"
WAITING_MAX = 4


class Rolling(Protocol):
    """What this path asks of a rollup. Thread-safe; may block."""

    def status(self) -> Status: ...
    def run_now(self) -> None: ...
    def pause(self, paused: bool) -> None: ...


class RollupPaths:
    """The handler, for the gateway's application."""

    def __init__(self, rollup: Rolling) -> None:
        self._rollup = rollup
        self._worker = ThreadPoolExecutor(1, "rollup-admin")
        self._waiting = 0

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {PATH: (self.rollup, "admin")}

    async def rollup(self, scope: Scope) -> Answer:
        """GET: the status. POST with action=run, pause or resume: the status after it."""
        if scope["method"] not in ("GET", "POST"):
            raise TenantFault(405, "sluiceway-method", "only GET and POST are taken here")
        action = action_of(scope) if scope["method"] == "POST" else ""
        if self._waiting >= WAITING_MAX:
            raise Overloaded(1.0, "too many requests for the rollup at once")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return success(await loop.run_in_executor(self._worker, self._act, action))
        finally:
            self._waiting -= 1

    def _act(self, action: str) -> Status:
        if action == "run":
            self._rollup.run_now()
        elif action:
            self._rollup.pause(action == "pause")
        return self._rollup.status()

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)


def action_of(scope: Scope) -> str:
    fields = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=4)
    action: str = fields.get("action", [""])[0]
    if action not in ("run", "pause", "resume"):
        words = "action: run, pause or resume"
        raise TenantFault(400, "sluiceway-rollup-parameter", words)
    return action


def success(data: Any) -> Answer:
    return Answer(200, JSON, msgspec.json.encode({"status": "success", "data": data}))
