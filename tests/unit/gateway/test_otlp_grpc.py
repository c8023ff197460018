"""OTLP over gRPC, with grpcio's own client and a shard that never decodes."""

import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest
import trustme
import uvloop

from fakes.gateway import FakeShard
from fakes.limits import limits_by
from sluiceway.clock import SystemClock
from sluiceway.errors import Overloaded
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.doors.otlp_grpc import EXPORT, STATUS_DETAILS, open_door
from sluiceway.gateway.keys import Keyring, new_key
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.quota.embedded import EmbeddedQuotaLimiter, QuotaConfig
from sluiceway.gateway.quota.interface import LimitsOf, unlimited
from sluiceway.gateway.receive import Receiver
from sluiceway.telemetry import Metrics
from sluiceway.tenants.limits import WriteLimits

Export = Callable[..., Awaitable[bytes]]


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"localhost:{probe.getsockname()[1]}"


def run(
    shard: FakeShard,
    story: Callable[[Export], Awaitable[None]],
    keyring: Keyring | None = None,
    limits: GatewayConfig | None = None,
    tls: tuple[Path | None, Path | None, Path | None] = (None, None, None),
    credentials: Any = None,
    limits_of: LimitsOf = unlimited,
) -> Metrics:
    limits, clock, metrics = limits or GatewayConfig(), SystemClock(), Metrics()

    async def main() -> None:
        acks = Acks(shard, clock, 5.0)
        acks.start()
        limiter = EmbeddedQuotaLimiter(limits_of, QuotaConfig())
        admission = Admission(limits, clock, random.Random(1), limits_of, limiter)
        receiver = Receiver(
            shard, acks, admission, keyring or Keyring(None), limits, clock, metrics
        )
        address = free_address()
        stop = await open_door(address, receiver, limits, tls)
        make = grpc.aio.insecure_channel
        if credentials is not None:
            make = lambda target: grpc.aio.secure_channel(target, credentials)  # noqa: E731
        try:
            async with make(address) as channel:
                await story(channel.unary_unary(EXPORT))
        finally:
            await stop(0.1)
            acks.stop()
            receiver.close()
        assert admission.bytes_in_flight == 0

    uvloop.run(main())
    return metrics


def test_bytes_in_and_out() -> None:
    shard = FakeShard()

    async def story(export: Export) -> None:
        assert await export(b"a request") == b""
        assert shard.bodies == [(b"a request", "default", 3, 0)]
        shard.receipt = {"rejected": [("unsupported_temporality", 2)], "points_received": 5}
        answer = await export(b"another")
        assert answer[2:4] == b"\x08\x02"
        assert b"unsupported_temporality: 2" in answer

    metrics = run(shard, story)
    assert metrics.value("sluiceway_write_requests_total", ("otlp_grpc", "200")) == 2


def test_errors_by_code() -> None:
    shard = FakeShard()

    async def story(export: Export) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await export(b"garbage")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        shard.error = Overloaded(2.0, "full")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await export(b"x")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        details = dict(caught.value.trailing_metadata())[STATUS_DETAILS]
        assert b"google.rpc.RetryInfo" in details
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await export(b"x" * 5000)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    run(shard, story, limits=GatewayConfig(body_bytes_max=1000))


def test_a_tenants_own_limit() -> None:
    async def story(export: Export) -> None:
        assert await export(b"x" * 10) == b""
        with pytest.raises(grpc.aio.AioRpcError, match="at most 10 bytes"):
            await export(b"x" * 11)

    limits_of = limits_by({"default": WriteLimits(body_bytes_max=10)})
    metrics = run(FakeShard(), story, limits_of=limits_of)
    assert metrics.value("sluiceway_write_requests_total", ("otlp_grpc", "413")) == 1


@pytest.mark.parametrize(
    ("over_rate", "status", "code"),
    [
        ("retry", "503", grpc.StatusCode.UNAVAILABLE),
        ("refuse", "429", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_over_the_rate(
    over_rate: Literal["retry", "refuse"], status: str, code: grpc.StatusCode
) -> None:
    async def story(export: Export) -> None:
        await export(b"x" * 1000)
        with pytest.raises(grpc.aio.AioRpcError, match="over the tenant's limit") as caught:
            await export(b"x")
        assert caught.value.code() == code
        details = dict(caught.value.trailing_metadata())[STATUS_DETAILS]
        assert b"google.rpc.RetryInfo" in details

    limits_of = limits_by({"default": WriteLimits(bytes_per_s=1, over_rate=over_rate)})
    metrics = run(FakeShard(), story, limits_of=limits_of)
    assert metrics.value("sluiceway_write_requests_total", ("otlp_grpc", status)) == 1
    labels = ("default", "sluiceway-over-rate")
    assert metrics.value("sluiceway_tenant_refused_total", labels) == 1


def test_keys_and_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, private = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    private.write_bytes(issued.private_key_pem.bytes())
    key, text = new_key("acme", "agent", ("write",))
    (tmp_path / "keys.toml").write_text(text)
    shard = FakeShard()

    async def story(export: Export) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await export(b"x")
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert await export(b"x", metadata=(("authorization", f"Bearer {key}"),)) == b""
        assert shard.bodies[0][1] == "acme"

    run(
        shard,
        story,
        keyring=Keyring(tmp_path / "keys.toml"),
        tls=(certificate, private, None),
        credentials=grpc.ssl_channel_credentials(authority.cert_pem.bytes()),
    )
