"""A write request's journey, with a shard that acks when told."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import uvloop

from fakes.gateway import FakeShard, Reply, call
from fakes.limits import limits_by
from sluiceway.clock import ManualClock, SystemClock
from sluiceway.errors import Overloaded
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import PART, GatewayApp
from sluiceway.gateway.keys import Keyring, new_key
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.quota.embedded import EmbeddedQuotaLimiter, QuotaConfig
from sluiceway.gateway.quota.interface import LimitsOf, unlimited
from sluiceway.gateway.receive import Receiver
from sluiceway.telemetry import Metrics
from sluiceway.tenants.limits import WriteLimits

WRITE = "/api/v1/write"
V2 = (b"content-type", b"application/x-protobuf;proto=io.prometheus.write.v2.Request")


class Gateway:
    """The application over a fake shard."""

    def __init__(
        self, shard: FakeShard, limits: GatewayConfig, keyring: Keyring, limits_of: LimitsOf
    ) -> None:
        self.shard, self.metrics = shard, Metrics()
        self.clock = SystemClock()
        self.acks = Acks(shard, self.clock, limits.ack_s_max)
        limiter = EmbeddedQuotaLimiter(limits_of, QuotaConfig())
        self.admission = Admission(limits, self.clock, random.Random(1), limits_of, limiter)
        self.receiver = Receiver(
            shard, self.acks, self.admission, keyring, limits, self.clock, self.metrics
        )
        proxy = ReadProxy("/nowhere.sock", limits)
        self.app = GatewayApp(self.receiver, proxy, keyring, {}, self.metrics)
        self.acks.start()

    async def write(self, body: bytes = b"body", **options: Any) -> Reply:
        return await call(self.app, WRITE, [body], **options)


def run(
    journey: Callable[[Gateway], Awaitable[None]],
    limits: GatewayConfig | None = None,
    shard: FakeShard | None = None,
    keyring: Keyring | None = None,
    limits_of: LimitsOf = unlimited,
) -> None:
    async def main() -> None:
        limits_or_ours, ring = limits or GatewayConfig(), keyring or Keyring(None)
        gateway = Gateway(shard or FakeShard(), limits_or_ours, ring, limits_of)
        try:
            await asyncio.wait_for(journey(gateway), 10)
        finally:
            gateway.acks.stop()
            gateway.receiver.close()
        assert gateway.admission.bytes_in_flight == 0
        assert gateway.admission.requests_in_flight == 0

    uvloop.run(main())


def test_answers_of_a_part_name_it() -> None:
    async def main() -> None:
        metrics, part = Metrics(), "partition 1 of 4"
        app = GatewayApp(None, None, Keyring(None), {}, metrics, part)
        refused = await call(app, "/api/v1/query", [])
        assert refused.status == 404
        assert refused.headers[PART] == b"partition 1 of 4"
        whole = await call(GatewayApp(None, None, Keyring(None), {}, metrics), "/", [])
        assert PART not in whole.headers

    uvloop.run(main())


def test_an_ack_waits_for_the_disk() -> None:
    async def journey(gateway: Gateway) -> None:
        task = asyncio.ensure_future(gateway.write())
        await asyncio.sleep(0.02)
        assert not task.done()
        gateway.shard.commit()
        assert (await task).status == 204
        assert gateway.shard.bodies == [(b"body", "default", 1, 1)]

    run(journey, shard=FakeShard(auto=False))


def test_a_group_answers_all_of_its_requests() -> None:
    async def journey(gateway: Gateway) -> None:
        tasks = [asyncio.ensure_future(gateway.write()) for _ in range(20)]
        await asyncio.sleep(0.02)
        gateway.shard.commit()
        assert {reply.status for reply in await asyncio.gather(*tasks)} == {204}

    run(journey, shard=FakeShard(auto=False))


def test_a_failed_group_is_503_and_the_next_is_fine() -> None:
    async def journey(gateway: Gateway) -> None:
        task = asyncio.ensure_future(gateway.write())
        await asyncio.sleep(0.01)
        gateway.shard.fail("EIO")
        reply = await task
        assert reply.status == 503
        assert b"EIO" in reply.body
        assert int(reply.headers[b"retry-after"]) >= 1
        gateway.shard.auto = True
        assert (await gateway.write()).status == 204

    run(journey, shard=FakeShard(auto=False))


def test_a_disk_that_never_answers() -> None:
    async def journey(gateway: Gateway) -> None:
        assert (await gateway.write()).status == 503

    run(journey, GatewayConfig(ack_s_max=0.1), FakeShard(auto=False))


def test_large_bodies_are_decoded_on_a_thread() -> None:
    async def journey(gateway: Gateway) -> None:
        reply = await call(gateway.app, WRITE, [b"x" * 600, b"y" * 600])
        assert reply.status == 204
        assert gateway.shard.bodies[0][0] == b"x" * 600 + b"y" * 600

    run(journey, GatewayConfig(inline_body_bytes_max=1000))


def test_a_body_of_undeclared_length() -> None:
    async def journey(gateway: Gateway) -> None:
        reply = await call(gateway.app, WRITE, [b"ab", b"cd"], declare=False)
        assert reply.status == 204
        reply = await call(gateway.app, WRITE, [b"x" * 9, b"x" * 9], declare=False)
        assert reply.status == 413
        assert reply.headers[b"connection"] == b"close"

    run(journey, GatewayConfig(body_bytes_max=16))


def test_remote_write_in_snappy_or_zstd() -> None:
    async def journey(gateway: Gateway) -> None:
        for encoding in (b"snappy", b"zstd", b" ZSTD "):
            headers = [(b"content-encoding", encoding)]
            assert (await gateway.write(headers=headers)).status == 204
        assert [body[3] for body in gateway.shard.bodies] == [1, 3, 3]

    run(journey)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"method": "GET"}, 405),
        ({"headers": [(b"content-type", b"text/plain")]}, 415),
        ({"headers": [(b"content-encoding", b"gzip")]}, 415),
        ({"headers": [(b"content-type", b"application/x-protobuf;proto=a.B")]}, 415),
        ({"headers": [(b"content-length", b"99999999999")]}, 413),
        ({"headers": [(b"content-length", b"1" * 400)]}, 413),
        ({"headers": [(b"content-length", b"-1")]}, 400),
        ({"headers": [(b"x-scope-orgid", b"other")]}, 403),
    ],
)
def test_refused_before_the_body(options: dict[str, Any], status: int) -> None:
    async def journey(gateway: Gateway) -> None:
        assert (await gateway.write(**options)).status == status
        assert gateway.shard.bodies == []
        lines = gateway.metrics.render().decode()
        assert "sluiceway_write_refused_unread_total" in lines

    run(journey)


def test_garbage_is_400_and_counted() -> None:
    async def journey(gateway: Gateway) -> None:
        reply = await gateway.write(b"garbage")
        assert reply.status == 400
        assert b"sluiceway-body" in reply.body
        labels = ("remote_write", "400")
        assert gateway.metrics.value("sluiceway_write_requests_total", labels) == 1

    run(journey)


def test_partial_success_in_remote_write_1_and_2() -> None:
    shard = FakeShard()
    shard.receipt = {
        "samples": 2,
        "histograms": 1,
        "points_received": 5,
        "rejected": [("missing_name", 2)],
        "first_error": "no __name__",
    }

    async def journey(gateway: Gateway) -> None:
        reply = await gateway.write()
        assert reply.status == 400
        assert reply.body == b"2 of 5 points refused (missing_name: 2); first: no __name__"
        reply = await gateway.write(headers=[V2])
        assert reply.status == 400
        assert reply.headers[b"x-prometheus-remote-write-samples-written"] == b"2"
        assert reply.headers[b"x-prometheus-remote-write-histograms-written"] == b"1"

    run(journey, shard=shard)


def test_remote_write_2_tells_what_was_written() -> None:
    # Exemplars are read and not kept: none was written, however many came.
    shard = FakeShard()
    shard.receipt = {"exemplars": 4}

    async def journey(gateway: Gateway) -> None:
        reply = await gateway.write(headers=[V2])
        assert reply.status == 204
        assert reply.headers[b"x-prometheus-remote-write-samples-written"] == b"3"
        assert reply.headers[b"x-prometheus-remote-write-exemplars-written"] == b"0"
        reply = await gateway.write(b"garbage", headers=[V2])
        assert reply.headers[b"x-prometheus-remote-write-samples-written"] == b"0"

    run(journey, shard=shard)


def test_otlp_answers() -> None:
    shard = FakeShard()

    async def journey(gateway: Gateway) -> None:
        protobuf, as_json = b"application/x-protobuf", b"application/json; charset=utf-8"
        for path in ("/v1/metrics", "/api/v1/otlp/v1/metrics"):
            reply = await call(gateway.app, path, [b"b"], headers=[(b"content-type", protobuf)])
            assert (reply.status, reply.body) == (200, b"")
        json_headers = [(b"content-type", as_json), (b"content-encoding", b"gzip")]
        reply = await call(gateway.app, "/v1/metrics", [b"b"], headers=json_headers)
        assert (reply.status, reply.body) == (200, b"{}")
        assert gateway.shard.bodies[-1][2:] == (4, 2)
        shard.receipt = {"rejected": [("unsupported_temporality", 2)], "points_received": 5}
        reply = await call(gateway.app, "/v1/metrics", [b"b"], headers=json_headers)
        assert b'"rejectedDataPoints": "2"' in reply.body
        reply = await call(
            gateway.app, "/v1/metrics", [b"b"], headers=[(b"content-type", protobuf)]
        )
        assert reply.body[2:4] == b"\x08\x02"
        shard.error = Overloaded(3.0, "full")
        reply = await call(gateway.app, "/v1/metrics", [b"b"], headers=json_headers)
        assert reply.status == 503
        assert b'"code": 14' in reply.body

    run(journey, shard=shard)


def test_overload_parks_then_refuses() -> None:
    limits = GatewayConfig(requests_in_flight_max=1, parked_max=1, parked_s_max=0.2)

    async def journey(gateway: Gateway) -> None:
        first = asyncio.ensure_future(gateway.write(b"one"))
        await asyncio.sleep(0.01)
        second = asyncio.ensure_future(gateway.write(b"two"))
        await asyncio.sleep(0.01)
        third = await gateway.write(b"three")
        assert third.status == 503
        assert 1 <= int(third.headers[b"retry-after"]) <= 30
        gateway.shard.commit()
        assert (await first).status == 204
        await asyncio.sleep(0.01)
        gateway.shard.commit()
        assert (await second).status == 204
        fourth = asyncio.ensure_future(gateway.write(b"four"))
        await asyncio.sleep(0.01)
        assert (await gateway.write(b"five")).status == 503  # parked until its time was up
        gateway.shard.commit()
        assert (await fourth).status == 204

    run(journey, limits, FakeShard(auto=False))


@pytest.mark.parametrize(("over_rate", "status"), [("retry", 503), ("refuse", 429)])
def test_over_the_rate_at_every_door(over_rate: Literal["retry", "refuse"], status: int) -> None:
    async def journey(gateway: Gateway) -> None:
        assert (await gateway.write(b"x" * 1000)).status == 204
        otlp = [(b"content-type", b"application/x-protobuf")]
        as_json = [(b"content-type", b"application/json")]
        replies = [
            await gateway.write(),
            await gateway.write(headers=[V2]),
            await call(gateway.app, "/v1/metrics", [b"b"], headers=otlp),
            await call(gateway.app, "/v1/metrics", [b"b"], headers=as_json),
        ]
        for reply in replies:
            assert reply.status == status
            assert 1 <= int(reply.headers[b"retry-after"]) <= 30
            assert b"write.bytes_per_s" in reply.body
            assert b"sluiceway-over-rate" in reply.body
        labels = ("default", "sluiceway-over-rate")
        assert gateway.metrics.value("sluiceway_tenant_refused_total", labels) == 4
        assert len(gateway.shard.bodies) == 1

    limited = WriteLimits(bytes_per_s=10, over_rate=over_rate)
    run(journey, limits_of=limits_by({"default": limited}))


def test_waiting_for_the_rate_is_counted() -> None:
    async def journey(gateway: Gateway) -> None:
        for _ in range(3):
            assert (await gateway.write()).status == 204
        assert gateway.metrics.value("sluiceway_tenant_parked_total", ("default",)) == 2

    limited = WriteLimits(requests_per_s=50, requests_burst=1)
    run(journey, limits_of=limits_by({"default": limited}))


def test_a_body_that_does_not_come() -> None:
    async def journey(gateway: Gateway) -> None:
        reply = await call(gateway.app, WRITE, [b"a", b"b"], hang=True)
        assert reply.status == 408
        assert reply.headers[b"connection"] == b"close"

    run(journey, GatewayConfig(body_s_max=0.05))


def test_shutting_down_refuses_new_requests() -> None:
    async def journey(gateway: Gateway) -> None:
        gateway.receiver.accepting = False
        assert (await gateway.write()).status == 503

    run(journey)


def test_retry_after_is_spread() -> None:
    admission = Admission(GatewayConfig(), ManualClock(), random.Random(7))
    seen = {admission.retry_after_s(Overloaded(10.0, "full")) for _ in range(200)}
    assert min(seen) >= 1
    assert max(seen) <= 20
    assert len(seen) > 10


def test_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, text = new_key("acme", "agents", ("write",))
    file.write_text(text)

    async def journey(gateway: Gateway) -> None:
        assert (await gateway.write()).status == 401
        bearer = (b"authorization", b"Bearer " + key.encode())
        assert (await gateway.write(headers=[bearer])).status == 204
        assert gateway.shard.bodies[0][1] == "acme"
        wrong = (b"authorization", b"Bearer " + key.encode() + b"x")
        assert (await gateway.write(headers=[wrong])).status == 401
        tenant = (b"x-scope-orgid", b"acme")
        assert (await gateway.write(headers=[bearer, tenant])).status == 204
        other = (b"x-scope-orgid", b"other")
        assert (await gateway.write(headers=[bearer, other])).status == 403
        reply = await call(gateway.app, "/api/v1/query", method="GET", headers=[bearer])
        assert reply.status == 403
        reply = await call(gateway.app, "/api/v1/query", method="GET")
        assert b"www-authenticate" in reply.headers

    run(journey, keyring=Keyring(file))


def test_the_read_side_is_away() -> None:
    async def journey(gateway: Gateway) -> None:
        reply = await call(gateway.app, "/api/v1/query", method="GET")
        assert reply.status == 503
        assert b'"errorType": "unavailable"' in reply.body
        assert (await call(gateway.app, "/api/v1/query", method="PUT")).status == 405
        assert (await call(gateway.app, "/nothing", method="GET")).status == 404

    run(journey)
