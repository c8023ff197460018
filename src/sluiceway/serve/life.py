"""The write side's life: from open doors to the last seal.

Invariant: closing is opening in reverse, within `drain_s_max`; whatever it does not finish in time
is in the journal.
"""

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Protocol

import structlog

from sluiceway.clock import Clock
from sluiceway.config import Config
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.receive import Receiver
from sluiceway.gateway.server import TLS_CHECK_S, HttpServer
from sluiceway.processor.hot_shard import HotShard
from sluiceway.serve.own_paths import OwnPaths
from sluiceway.serve.pulse import Beat, silent
from sluiceway.telemetry import Metrics

LAG_SAMPLE_S = 0.1
LAG_WINDOW = 100
log = structlog.get_logger()


class Reloadable(Protocol):
    """A file that may change while it is in use."""

    def reload(self) -> bool:
        """Take it if it changed. Raises: OSError, ValueError (what was there stays)."""
        ...


class Life:
    """When the process ends, why, and how long the end may take."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        metrics: Metrics,
        beat: Beat = silent,
    ) -> None:
        """`beat`: called by the loop about once a second while it serves; must not block."""
        self._beat = beat
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._stopping_since_s = 0.0
        self._unusable: Exception | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)

    def give_up(self, error: Exception) -> None:
        """Any thread: data that cannot be read is not served as if there were none."""
        self._unusable = error
        self._loop.call_soon_threadsafe(self._stopping.set)

    def end(self) -> None:
        """Any thread: as if it were told to by a signal."""
        self._loop.call_soon_threadsafe(self._stopping.set)

    def check(self) -> None:
        """Raise what ended this life, unless it was asked to end."""
        if self._unusable is not None:
            raise self._unusable

    async def serve(
        self,
        server: HttpServer,
        listener: socket.socket,
        parts: tuple[Receiver, Acks, OwnPaths],
        stop_grpc: Callable[[float], Awaitable[None]] | None,
        files: Sequence[Reloadable],
    ) -> None:
        """Open the doors, wait for the end, close them; what came in is acked."""
        receiver, acks, own = parts

        async def drain() -> None:
            receiver.accepting = False
            if stop_grpc is not None:
                await stop_grpc(self._config.drain_s_max / 4)

        try:
            await self.serve_until_told(server, listener, own.watch(), drain, files)
        finally:
            acks.stop()
            receiver.close()
            own.close()

    async def serve_until_told(
        self,
        server: HttpServer,
        listener: socket.socket,
        watch: Coroutine[None, None, None] | None,
        drain: Callable[[], Awaitable[None]],
        files: Sequence[Reloadable],
    ) -> None:
        """Serve, with `watch` beside it, until told to end; then drain and close the doors."""
        serving = asyncio.ensure_future(server.serve([listener]))
        tasks = [
            asyncio.ensure_future(self._reload(files)),
            asyncio.ensure_future(self._sample_lag()),
        ]
        if watch is not None:
            tasks.append(asyncio.ensure_future(watch))
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        gc.enable()
        log.info("listening", http=self._config.http, data_dir=str(self._config.data_dir))
        try:
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        finally:
            log.info("draining")
            self._stopping_since_s = self._clock.monotonic_s()
            await drain()
            server.should_exit = True
            await serving
            for task in tasks:
                task.cancel()

    async def seal(self, hot: HotShard) -> None:
        """Stop the shard, sealed if there is time."""
        gone_s = self._clock.monotonic_s() - self._stopping_since_s
        left_s = max(1.0, self._config.drain_s_max - gone_s - 1.0)
        log.info("stopped", sealed=await asyncio.to_thread(hot.stop, left_s))

    async def _reload(self, files: Sequence[Reloadable]) -> None:
        """Take changed keys and certificates; a broken file keeps what was there."""
        while True:
            await asyncio.sleep(TLS_CHECK_S)
            for file in files:
                try:
                    if file.reload():
                        log.info("keys_or_certificates_taken")
                except (OSError, ValueError) as error:
                    log.error("keys_or_certificates_refused", error=str(error))

    async def _sample_lag(self) -> None:
        """How long the loop stood, at worst, over the last LAG_WINDOW samples."""
        samples = [0.0] * LAG_WINDOW
        at = 0
        while True:
            before_s = self._loop.time()
            await asyncio.sleep(LAG_SAMPLE_S)
            samples[at] = max(0.0, self._loop.time() - before_s - LAG_SAMPLE_S)
            at = (at + 1) % LAG_WINDOW
            if at % 10 == 0:
                self._metrics.set("sluiceway_event_loop_lag_seconds", max(samples), ("write",))
                self._beat()
