"""What the read side's process is in itself: a child that ends with its parent, in bounded memory.

Invariant: it holds no points and writes none; of the data directory it writes the tenants' records
alone. It dies with the write side, and the write side starts it again when it dies.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sluiceway.query.limits import QueriesRun
from sluiceway.serve.http import Application, Connection, ReadServer
from sluiceway.serve.logs import set_up_logs
from sluiceway.serve.priority import stand_back
from sluiceway.serve.signals import STOP_SIGNAL

PR_SET_PDEATHSIG = 1
MEMORY_BYTES_MIN = 256 << 20
"""Less does not hold the interpreter, its libraries and one small query."""
THREAD_STACK_BYTES = 512 << 10
"""Of a connection's thread. The deepest query that is taken needs less than a quarter of it; the
system's usual 8 MiB a thread would count against the memory that queries may have."""
SWITCH_INTERVAL_S = 0.0005
"""A small query asks for the interpreter a dozen times, beside threads that have it: at Python's
usual 5 ms each of these would be a wait."""


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


def run_child(run: Callable[[dict[str, Any]], None]) -> None:
    """Read the settings that the parent writes, and run; never returns."""
    # Also where they are sent to the whole process group, these are the write side's to hear: it
    # answers what it has taken before it ends this side.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    settings = json.loads(sys.stdin.buffer.read())
    die_with_parent(settings["parent_id"])
    set_up_logs(settings["log_level"])
    Path(settings["http_socket"]).unlink(missing_ok=True)
    limit_memory(settings["memory_bytes_max"])
    threading.stack_size(THREAD_STACK_BYTES)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    gc.enable()
    run(settings)
    os._exit(0)  # a query that still runs on a thread must not hold up the end


def serve_until_told(
    application: Application,
    socket_path: str,
    connections_max: int,
    queries_run: QueriesRun,
    start_beside: Callable[[], None] | None = None,
) -> None:
    """Serve until STOP_SIGNAL; on the main thread, which alone hears signals. `start_beside`
    starts what else answers queries here."""
    server = ReadServer(partial(Connection, application=application), socket_path, connections_max)
    stand_back(queries_run)  # not before: the start takes no longer for it
    if start_beside is not None:
        start_beside()
    signal.signal(STOP_SIGNAL, lambda *_: server.stop())
    server.serve()
