"""The read side's process: query API and engine over a Unix socket, reached through the gateway.

Invariant: it holds no data and writes none. It dies with the write side, and the write side starts
it again when it dies.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import sys
from pathlib import Path

import uvloop

from sluiceway.clock import SystemClock
from sluiceway.kernels import ShardClient
from sluiceway.query.api.app import QueryApp
from sluiceway.query.api.prometheus import PrometheusApi
from sluiceway.query.limits import QueryConfig
from sluiceway.query.promql.engine import Engine, EngineLimits
from sluiceway.telemetry import Metrics, memory_bytes
from sluiceway.wiring.http import http_server
from sluiceway.wiring.logs import set_up_logs

PR_SET_PDEATHSIG = 1
MEMORY_BYTES_MIN = 256 << 20
"""Less does not hold the interpreter, its libraries and one small query."""


def die_with_parent(parent_id: int) -> None:
    """Be killed when the parent ends, however it ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:
        sys.exit("the write side has ended already")


def limit_memory(bytes_max: int) -> None:
    """Let an allocation past our share of `memory_max` fail: a query then ends in a 503, and at
    worst this process ends, never the write side."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = max(bytes_max, MEMORY_BYTES_MIN)
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def engine_limits(limits: QueryConfig, memory_bytes_max: int) -> EngineLimits:
    return EngineLimits(
        series_max=limits.series_max,
        points_max=limits.points_max,
        bytes_max=min(limits.result_bytes_max, memory_bytes_max // 2),
        lookback_ms=limits.lookback_ms,
    )


async def run(settings: dict[str, object]) -> None:
    """Serve until SIGTERM."""
    limits = QueryConfig(**settings["query"])  # type: ignore[arg-type]
    clock, metrics = SystemClock(), Metrics()
    metrics.set("sluiceway_process_start_seconds", clock.now_ms() / 1000, ("read",))
    memory_bytes_max = int(str(settings["memory_bytes_max"]))
    metrics.set("sluiceway_memory_bytes_max", memory_bytes_max, ("read",))
    limit_memory(memory_bytes_max)
    client = ShardClient(str(settings["evaluate_socket"]))
    engine = Engine(client, engine_limits(limits, memory_bytes_max), clock)
    api = PrometheusApi(engine, client, limits, clock)
    app = QueryApp(api, limits, clock, metrics)

    server = http_server(app, str(settings["http_socket"]))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, setattr, server, "should_exit", True)
    serving = asyncio.ensure_future(server.serve())
    while not serving.done():
        metrics.set("sluiceway_memory_bytes", memory_bytes(), ("read",))
        await asyncio.wait({serving}, timeout=1.0)
    app.close()
    await serving


def main() -> None:
    settings = json.loads(sys.stdin.buffer.read())
    die_with_parent(settings["parent_id"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the write side's to hear
    set_up_logs(settings["log_level"])
    Path(settings["http_socket"]).unlink(missing_ok=True)
    gc.freeze()
    uvloop.run(run(settings))
    os._exit(0)  # a query that still runs on a thread must not hold up the end


if __name__ == "__main__":
    main()
