"""The write path over the real shard: how often the GIL is taken back for a request."""

import asyncio
import random
import socket
from pathlib import Path

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

REQUESTS = 20
T_MS = 1_700_000_000_000


def test_the_gil_is_taken_back_twice_at_most(tmp_path: Path) -> None:
    """Once behind the decoder, once when the loop wakes for the group."""
    clock = SystemClock()
    disk = Disk.real(str(tmp_path))
    # Not started: the processor's own calls would be counted with the gateway's.
    hot = HotShard(disk, {"hash_seed": 1}, HotConfig(), clock)
    body = remote_write(({"__name__": "m", "i": str(i)}, [(T_MS, 1.0)]) for i in range(500))
    taken: list[int] = []

    async def main() -> None:
        limits, metrics, keyring = GatewayConfig(), Metrics(), Keyring(None)
        acks = Acks(hot.shard, clock, 5.0)
        acks.start()
        admission = Admission(limits, clock, random.Random(1))
        receiver = Receiver(hot.shard, acks, admission, keyring, limits, clock, metrics)
        app = GatewayApp(receiver, ReadProxy("/nowhere", limits), keyring, {}, metrics)
        server = http_server(app, limits, None, 2.0)
        listener = listen("127.0.0.1", 0)
        serving = asyncio.ensure_future(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        before = gil_reacquisitions()
        await asyncio.to_thread(_send, listener.getsockname()[1], body)
        taken.append(gil_reacquisitions() - before)
        acks.stop()
        receiver.close()
        server.should_exit = server.force_exit = True
        await serving

    uvloop.run(main())
    hot.shard.close()
    wakes_for_acks = REQUESTS
    assert taken[0] + wakes_for_acks <= 2 * REQUESTS


def _send(port: int, body: bytes) -> None:
    head = b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(REQUESTS):
            connection.sendall(head + body)
            assert connection.recv(4096).startswith(b"HTTP/1.1 204")
