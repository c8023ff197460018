"""The write path's budget of Python: at most 60 calls a request, HTTP server included."""

import asyncio
import random
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from fakes.gateway import FakeShard
from fakes.tenants import tenancy
from sluiceway.clock import SystemClock
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.quota.embedded import EmbeddedQuotaLimiter, QuotaConfig
from sluiceway.gateway.receive import Receiver
from sluiceway.gateway.server import http_server, listen
from sluiceway.telemetry import Metrics
from sluiceway.tenants.model import Tenant

CALLS_MAX = 60
RATES = {"points_per_s": 10**9, "bytes_per_s": 10**9, "requests_per_s": 10**6}
"""Never reached; looked at and charged with every request."""
REQUESTS = 50
HEAD = (
    b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\nUser-Agent: Prometheus/3.5.0\r\n"
    b"Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n"
    b"X-Prometheus-Remote-Write-Version: 0.1.0\r\nAuthorization: Bearer %b\r\n"
)


def test_calls_of_a_write_request(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            code = frame.f_code
            if "/fakes/" not in code.co_filename and "test_budget" not in code.co_filename:
                calls[f"{code.co_filename}:{code.co_qualname}"] += 1

    async def main() -> None:
        limits, clock, metrics = GatewayConfig(), SystemClock(), Metrics()
        shard, keyring, head = FakeShard(), *keyed(tmp_path)
        acks = Acks(shard, clock, 5.0)
        acks.start()
        tenants = tenancy(tmp_path)[0].directory()
        limits_of = lambda tenant: tenants.limits(tenant).write  # noqa: E731
        limiter = EmbeddedQuotaLimiter(limits_of, QuotaConfig())
        admission = Admission(limits, clock, random.Random(1), limits_of, limiter)
        receiver = Receiver(shard, acks, admission, keyring, limits, clock, metrics)
        app = GatewayApp(receiver, ReadProxy("/nowhere", limits), keyring, {}, metrics)
        server = http_server(app, limits, None, 2.0, app)
        listener = listen("127.0.0.1", 0)
        serving = asyncio.ensure_future(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        port = listener.getsockname()[1]
        await asyncio.to_thread(_send, head, port, 3)  # caches fill
        client = asyncio.ensure_future(asyncio.to_thread(_send, head, port, REQUESTS))
        await asyncio.sleep(0)
        sys.setprofile(count)
        await client
        sys.setprofile(None)
        acks.stop()
        receiver.close()
        server.should_exit = server.force_exit = True
        await serving

    uvloop.run(main())
    a_request = sum(calls.values()) / REQUESTS
    assert a_request <= CALLS_MAX, "\n".join(f"{n} {name}" for name, n in calls.most_common())


def keyed(place: Path) -> tuple[Keyring, bytes]:
    """A tenant's key out of the directory, which the keyring knows, and a request's head."""
    tenants, clock = tenancy(place)
    with tenants.publisher(tenants.directory()).acting() as (store, _):
        store.create_tenant("test", Tenant("acme", "standard", {"write": RATES}))
        key, _ = store.create_key("test", "acme", "agent", ("write",))
    keyring = Keyring(place / "keys.toml", tenants.directory(), clock)
    return keyring, HEAD % key.encode()


def _send(head: bytes, port: int, requests: int) -> None:
    """A client on a thread of its own: its calls are not counted."""
    request = head + b"Content-Length: 20000\r\n\r\n" + b"x" * 20_000
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(requests):
            connection.sendall(request)
            assert connection.recv(4096).startswith(b"HTTP/1.1 204")
