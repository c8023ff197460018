"""Keeps the read side alive: starts it, watches it, starts it again.

Invariant: whatever happens to the child, the write path does not notice.
"""

import asyncio
import contextlib
import json
import os
from typing import Any

import structlog

from sluiceway.errors import BackendUnavailable
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.serve.signals import STOP_SIGNAL
from sluiceway.telemetry import Metrics

RESTART_S_MIN, RESTART_S_MAX = 0.1, 5.0
STEADY_S = 10.0
"""A child that lived this long is started again at once."""
STOP_S_MAX = 2.0
WATCH_S = 0.5
log = structlog.get_logger()


class ReadProcess:
    """The child process and whether it answers."""

    def __init__(
        self,
        command: tuple[str, ...],
        settings: dict[str, Any],
        proxy: ReadProxy,
        metrics: Metrics,
    ) -> None:
        self._command = command
        self._settings = {**settings, "parent_id": os.getpid()}
        self._proxy = proxy
        self._metrics = metrics
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.up = False

    def start(self) -> None:
        self._metrics.count("sluiceway_read_side_restarts_total", by=0)
        self._tasks = [
            asyncio.create_task(self._keep_alive()),
            asyncio.create_task(self._watch()),
        ]

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def stop(self) -> None:
        """Ask the child to end, then make it end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(STOP_SIGNAL)
        try:
            await asyncio.wait_for(process.wait(), STOP_S_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _keep_alive(self) -> None:
        pause_s = RESTART_S_MIN
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.PIPE
                )
                await self._process.communicate(json.dumps(self._settings).encode())
                status = self._process.returncode
            except OSError as error:
                status, self._process = None, None
                log.error("read_side_not_started", error=str(error))
            self.up = False
            self._metrics.count("sluiceway_read_side_restarts_total")
            log.warning("read_side_ended", status=status, again_in_s=pause_s)
            if loop.time() - started_s > STEADY_S:
                pause_s = RESTART_S_MIN
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_S_MAX)

    async def _watch(self) -> None:
        while True:
            self.up = False if self._process is None else await self.answers()
            self._metrics.set("sluiceway_read_side_up", self.up)
            await asyncio.sleep(WATCH_S if self.up else WATCH_S / 5)

    async def answers(self) -> bool:
        """Does the child answer right now?"""
        with contextlib.suppress(BackendUnavailable, TimeoutError):
            return (await self._proxy.fetch("/ready"))[0] == 200
        return False
