"""The write path over the real shard: how often a request makes a thread take the GIL back."""

import asyncio
import random
import resource
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest
import uvloop

from fakes.server import remote_write
from sluiceway.clock import SystemClock
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.receive import Receiver
from sluiceway.gateway.server import http_server, listen
from sluiceway.kernels import Disk, gil_reacquisitions
from sluiceway.processor.hot_shard import HotShard
from sluiceway.telemetry import Metrics
from sluiceway.tiers.hot import HotConfig

REQUESTS = 200
T_MS = 1_700_000_000_000
CLIENT = """
import selectors, socket, sys
port, connections, requests = map(int, sys.argv[1:])
body = sys.stdin.buffer.read()
head = b"POST /api/v1/write HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
selector, left = selectors.DefaultSelector(), {}
for _ in range(connections):
    one = socket.create_connection(("127.0.0.1", port))
    left[one] = requests // connections
    selector.register(one, selectors.EVENT_READ)
    one.sendall(head + body)
while left:
    for key, _ in selector.select():
        one = key.fileobj
        assert one.recv(4096).startswith(b"HTTP/1.1 204")
        left[one] -= 1
        if left[one]:
            one.sendall(head + body)
        else:
            selector.unregister(one)
            del left[one]
"""
"""In a process of its own: its threads must not be the ones that hold the GIL."""


@dataclass
class Taken:
    """Per request: kernels that took the GIL back, wake-ups of the loop for acks, and how often its
    thread slept at all, which counts those, those for requests, and every wait for the GIL."""

    by_kernels: float
    by_acks: float
    sleeps: float


class CountedAcks(Acks):
    wake_ups = 0

    def _on_group(self) -> None:
        self.wake_ups += 1
        super()._on_group()


def sleeps() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def measure(folder: Path, connections: int) -> Taken:
    clock = SystemClock()
    # Not started: the processor's own calls would be counted with the gateway's.
    hot = HotShard(Disk.real(str(folder)), {"hash_seed": 1}, HotConfig(), clock)
    body = remote_write(({"__name__": "m", "i": str(i)}, [(T_MS, 1.0)]) for i in range(500))
    taken: list[Taken] = []

    async def main() -> None:
        limits, metrics, keyring = GatewayConfig(), Metrics(), Keyring(None)
        acks = CountedAcks(hot.shard, clock, 5.0)
        acks.start()
        admission = Admission(limits, clock, random.Random(1))
        receiver = Receiver(hot.shard, acks, admission, keyring, limits, clock, metrics)
        app = GatewayApp(receiver, ReadProxy("/nowhere", limits), keyring, {}, metrics)
        server = http_server(app, limits, None, 2.0, app)
        listener = listen("127.0.0.1", 0)
        serving = asyncio.ensure_future(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        before = gil_reacquisitions(), acks.wake_ups, sleeps()
        arguments = [listener.getsockname()[1], connections, REQUESTS]
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, *map(str, arguments), stdin=subprocess.PIPE
        )
        await client.communicate(body)
        assert client.returncode == 0
        after = gil_reacquisitions(), acks.wake_ups, sleeps()
        taken.append(Taken(*((b - a) / REQUESTS for a, b in zip(before, after, strict=True))))
        acks.stop()
        receiver.close()
        server.should_exit = server.force_exit = True
        await serving

    uvloop.run(main())
    hot.shard.close()
    return taken[0]


@pytest.mark.parametrize("connections", [1, 8])
def test_the_gil_is_taken_back_twice_at_most(tmp_path: Path, connections: int) -> None:
    """Once behind the decoder, once when the loop wakes for the group; nothing else wakes it, but
    the request itself (and, all along, its client's start and end)."""
    # In a process of its own: threads that earlier tests have left call kernels now and then.
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        taken = alone.submit(measure, tmp_path, connections).result(60)
    assert taken.by_kernels + taken.by_acks <= 2.05, taken
    assert taken.sleeps <= 2.2, taken
