"""The write side's process: gateway, journal, processor, hot shard; parent of the read side.

Invariant: the order of opening is the order of dependence (disk and lock, read process, shard,
worker, evaluate server, doors) and the order of closing is its reverse; whatever closing does not
finish in time is in the journal.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
import uvloop

from sluiceway.clock import Clock, SystemClock, jitter
from sluiceway.config import Config, split_address
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.interface import WriteShard
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.receive import Receiver
from sluiceway.gateway.server import TLS_CHECK_S, TlsFiles, http_server, listen
from sluiceway.telemetry import Metrics
from sluiceway.wiring.logs import set_up_logs
from sluiceway.wiring.own_paths import OwnPaths
from sluiceway.wiring.read_process import ReadProcess
from sluiceway.wiring.shard import OpenShard, open_disk, open_shard

SWITCH_INTERVAL_S = 0.0005
SOCKET_PATH_BYTES_MAX = 100  # sockaddr_un holds 108
LAG_SAMPLE_S = 0.1
LAG_WINDOW = 100
log = structlog.get_logger()


class WriteSide:
    """One `sluiceway serve`."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._metrics = Metrics()
        self._stopping = asyncio.Event()
        self._unusable: Exception | None = None
        self._keyring = Keyring(config.key_file() if config.auth == "keys" else None)
        self._tls: TlsFiles | None = None
        if config.tls_cert is not None and config.tls_key is not None:
            self._tls = TlsFiles(config.tls_cert, config.tls_key, config.tls_client_ca)

    def request_stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Serve until told to stop. Raises: OSError, BackendUnavailable, Corruption at opening."""
        config, metrics = self._config, self._metrics
        loop = asyncio.get_running_loop()

        def unusable(error: Exception) -> None:
            loop.call_soon_threadsafe(self._give_up, error)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        metrics.set("sluiceway_process_start_seconds", self._clock.now_ms() / 1000, ("write",))
        metrics.set("sluiceway_memory_bytes_max", config.memory_bytes_max() * 3 // 4, ("write",))
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(listen(*split_address(config.http)))
            disk = open_disk(config)
            sockets = stack.enter_context(socket_directory(config.data_dir))
            proxy = ReadProxy(str(sockets / "read.sock"), config.gateway)
            stack.callback(proxy.close)
            # Started before the shard is open: the two take their time side by side.
            read = ReadProcess(self._read_settings(sockets), proxy, metrics)
            read.start()
            stack.push_async_callback(read.stop)
            opened = await loop.run_in_executor(
                None,
                open_shard,
                config,
                disk,
                str(sockets / "evaluate.sock"),
                self._clock,
                unusable,
            )
            stack.callback(opened.close)
            await self._serve(opened, read, proxy, listener)
        if self._unusable is not None:
            raise self._unusable

    def _give_up(self, error: Exception) -> None:
        """Data that cannot be read is not served as if there were none."""
        self._unusable = error
        self.request_stop()

    async def _serve(
        self, opened: OpenShard, read: ReadProcess, proxy: ReadProxy, listener: Any
    ) -> None:
        """Open the doors, wait for the end, close them and drain."""
        config, clock, metrics = self._config, self._clock, self._metrics
        loop = asyncio.get_running_loop()
        acks = Acks(opened.hot.shard, clock, config.gateway.ack_s_max)
        acks.start()
        admission = Admission(config.gateway, clock, jitter())
        receiver = self._receiver(opened.hot.shard, acks, admission)
        own = OwnPaths(
            opened.hot,
            opened.figures,
            read,
            proxy,
            admission,
            metrics,
            lambda: receiver.accepting,
        )
        app = GatewayApp(receiver, proxy, self._keyring, own.table(), metrics)
        tls = None if self._tls is None else self._tls.context
        server = http_server(app, config.gateway, tls, config.drain_s_max)
        serving = asyncio.ensure_future(server.serve([listener]))
        grpc_door = await self._open_grpc(receiver)
        tasks = [
            asyncio.ensure_future(self._reload_files()),
            asyncio.ensure_future(self._sample_lag()),
        ]
        gc.collect()
        gc.freeze()
        log.info("listening", http=config.http, data_dir=str(config.data_dir))
        try:
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        finally:
            log.info("draining")
            receiver.accepting = False
            started_s = clock.monotonic_s()
            if grpc_door is not None:
                await grpc_door(config.drain_s_max / 4)
            server.should_exit = True
            await serving
            for task in tasks:
                task.cancel()
            acks.stop()
            receiver.close()
            own.close()
            left_s = max(1.0, config.drain_s_max - (clock.monotonic_s() - started_s) - 1.0)
            sealed = await loop.run_in_executor(None, opened.hot.stop, left_s)
            log.info("stopped", sealed=sealed)

    def _receiver(self, shard: WriteShard, acks: Acks, admission: Admission) -> Receiver:
        return Receiver(
            shard,
            acks,
            admission,
            self._keyring,
            self._config.gateway,
            self._clock,
            self._metrics,
        )

    async def _open_grpc(self, receiver: Receiver) -> Callable[[float], Any] | None:
        """The gRPC door's `stop`, where the door is asked for; grpcio is imported only then."""
        if self._config.otlp_grpc is None:
            return None
        from sluiceway.gateway.doors.otlp_grpc import open_door

        return await open_door(
            self._config.otlp_grpc,
            receiver,
            self._config.gateway,
            (self._config.tls_cert, self._config.tls_key, self._config.tls_client_ca),
        )

    def _read_settings(self, sockets: Path) -> dict[str, Any]:
        config = self._config
        return {
            "query": asdict(config.query),
            "evaluate_socket": str(sockets / "evaluate.sock"),
            "http_socket": str(sockets / "read.sock"),
            "memory_bytes_max": config.memory_bytes_max() // 4,
            "log_level": config.log_level,
        }

    async def _reload_files(self) -> None:
        """Take changed keys and certificates; a broken file keeps what was there."""
        while True:
            await asyncio.sleep(TLS_CHECK_S)
            for reload in (self._keyring.reload, self._tls.reload if self._tls else None):
                try:
                    if reload is not None and reload():
                        log.info("keys_or_certificates_taken")
                except (OSError, ValueError) as error:
                    log.error("keys_or_certificates_refused", error=str(error))

    async def _sample_lag(self) -> None:
        """How long the loop stood, at worst, over the last LAG_WINDOW samples."""
        loop = asyncio.get_running_loop()
        samples = [0.0] * LAG_WINDOW
        at = 0
        while True:
            before_s = loop.time()
            await asyncio.sleep(LAG_SAMPLE_S)
            samples[at] = max(0.0, loop.time() - before_s - LAG_SAMPLE_S)
            at = (at + 1) % LAG_WINDOW
            if at % 10 == 0:
                self._metrics.set("sluiceway_event_loop_lag_seconds", max(samples), ("write",))


@contextlib.contextmanager
def socket_directory(data_dir: Path) -> Any:
    """A directory that only this user may enter, for the sockets between the two sides."""
    inside = data_dir.resolve() / "run"
    if len(os.fsencode(inside / "evaluate.sock")) <= SOCKET_PATH_BYTES_MAX:
        inside.mkdir(mode=0o700, parents=True, exist_ok=True)
        inside.chmod(0o700)
        yield inside
    else:  # a deep data directory: its socket paths would not fit into an address
        with tempfile.TemporaryDirectory(prefix="sluiceway-") as elsewhere:
            yield Path(elsewhere)


def serve(config: Config) -> None:
    """Run the write side until SIGTERM or Ctrl-C."""
    set_up_logs(config.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    async def main() -> None:
        await WriteSide(config).run()

    uvloop.run(main())
