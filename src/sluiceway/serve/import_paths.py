"""The path of imports: where a tenant's raw points begin, and a day's windows as a file. On the
write side, with the catalog.

Invariant: only a key of scope admin comes here. A body goes to a file of its own while it comes, at
most `BODY_BYTES_MAX`, one at a time; what is answered with success is committed.
"""

import asyncio
import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qs

import structlog

from sluiceway.errors import Overloaded, TenantFault
from sluiceway.gateway.app import PRINCIPAL, RECEIVE, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Receive, Scope
from sluiceway.rollup.imports import IMPORT_DIRECTORY, Imports
from sluiceway.rollup.schedule import TenantView, World
from sluiceway.rollup.worker import Job
from sluiceway.serve.rollup_paths import success

PATH = "/admin/v1/import"
FILE = "day.swm"
BODY_BYTES_MAX = 8 << 30
"""A day of one tenant: some 10^10 raw points."""
WAIT_S_MAX = 600.0
"""For the task that the rollup does just now."""
MESSAGE_S_MAX = 60.0


class JobTaker(Protocol):
    """The rollup. Any thread; blocks."""

    def between_tasks(self, job: Job, timeout_s: float) -> Any: ...


class ImportPaths:
    """The handler, for the gateway's application."""

    def __init__(self, rollup: JobTaker, imports: Imports, data_dir: Path) -> None:
        self._rollup = rollup
        self._imports = imports
        self._directory = data_dir
        self._worker = ThreadPoolExecutor(1, "import")
        self._numbers = itertools.count(1)
        self._busy = False
        self._log = structlog.get_logger("import")
        remove(data_dir / IMPORT_DIRECTORY)  # What an earlier process left.

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {PATH: (self.take, "admin")}

    async def take(self, scope: Scope) -> Answer:
        """POST with action=begin: the tenant's horizon. POST of a warm file: its day is joined."""
        if scope["method"] != "POST":
            raise TenantFault(405, "sluiceway-method", "only POST is taken here")
        fields = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=8)
        tenant = fields.get("tenant", [scope[PRINCIPAL].tenant])[0]
        if self._busy:
            raise Overloaded(1.0, "one import at a time")
        self._busy = True
        try:
            if fields.get("action", [""])[0] == "begin":
                return success(await self._on_worker(self._begin, tenant))
            place = f"{IMPORT_DIRECTORY}/{next(self._numbers)}"
            try:
                await self._save(scope[RECEIVE], self._directory / place)
                told = await self._on_worker(self._take, tenant, f"{place}/{FILE}")
            finally:
                await self._on_worker(remove, self._directory / place)
            self._log.info("imported", tenant=tenant, day_ms=told.day_ms, points=told.points)
            return success(told)
        finally:
            self._busy = False

    async def _on_worker(self, act: Any, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, act, *arguments)

    def _begin(self, tenant: str) -> Any:
        def job(views: tuple[TenantView, ...], world: World) -> Any:
            return self._imports.begin(view_of(views, tenant), world)

        return self._rollup.between_tasks(job, WAIT_S_MAX)

    def _take(self, tenant: str, path: str) -> Any:
        def job(views: tuple[TenantView, ...], world: World) -> Any:
            return self._imports.take(view_of(views, tenant), world, path)

        return self._rollup.between_tasks(job, WAIT_S_MAX)

    async def _save(self, receive: Receive, path: Path) -> None:
        """The body into a file in a directory of its own. Raises: TenantFault 400 or 413,
        TimeoutError, OSError."""
        path.mkdir(parents=True)
        file: BinaryIO = await self._on_worker((path / FILE).open, "xb")
        try:
            size, more = 0, True
            while more:
                async with asyncio.timeout(MESSAGE_S_MAX):
                    message = await receive()
                if message["type"] != "http.request":
                    raise TenantFault(400, "sluiceway-import", "the body was cut off")
                body = message.get("body", b"")
                size += len(body)
                if size > BODY_BYTES_MAX:
                    words = f"a day's file has at most {BODY_BYTES_MAX} bytes"
                    raise TenantFault(413, "sluiceway-import", words)
                await self._on_worker(file.write, body)
                more = message.get("more_body", False)
        finally:
            await self._on_worker(file.close)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)


def view_of(views: tuple[TenantView, ...], tenant: str) -> TenantView | None:
    return next((view for view in views if view.name == tenant), None)


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
