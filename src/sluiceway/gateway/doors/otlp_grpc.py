"""OTLP metrics over gRPC: raw bytes in, raw bytes out, the same journey as HTTP's.

Invariant: grpcio's only shed is `maximum_concurrent_rpcs`; a message past `body_bytes_max`
(decompressed) is refused by it. HTTP is the fast door: gRPC costs about five times its CPU.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from sluiceway.errors import TenantFault
from sluiceway.gateway.doors import otlp_wire
from sluiceway.gateway.doors.interface import Payload, describe_rejected
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.receive import Receiver, Refused
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_OTLP_PROTOBUF

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
PAYLOAD = Payload(FORMAT_OTLP_PROTOBUF, ENCODING_IDENTITY)
STATUS_DETAILS = "grpc-status-details-bin"
CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
RETRY_CODES = {
    otlp_wire.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    otlp_wire.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


class MetricsService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves `Export`; every other method is unknown."""

    name = "otlp_grpc"

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._handler = grpc.unary_unary_rpc_method_handler(self.export)

    def service(self, handler_call_details: Any) -> Any:
        return self._handler if handler_call_details.method == EXPORT else None

    async def export(self, request: bytes, context: Any) -> bytes:
        """One ExportMetricsServiceRequest to its response."""
        headers = {
            name.encode(): value.encode() if isinstance(value, str) else value
            for name, value in context.invocation_metadata()
        }
        try:
            receipt = await self._receiver.take_whole(self.name, PAYLOAD, headers, request)
        except TenantFault as fault:
            code = CODES.get(fault.status, grpc.StatusCode.INVALID_ARGUMENT)
            await context.abort(code, f"{fault.message} ({fault.id})")
            raise AssertionError("abort raises") from None
        except Refused as refused:
            refusal = refused.refusal
            over_rate = refusal.status == 429
            number = otlp_wire.RESOURCE_EXHAUSTED if over_rate else otlp_wire.UNAVAILABLE
            words = f"{refusal.message} ({refusal.id})"
            details = otlp_wire.status(number, words, refusal.retry_after_s)
            context.set_trailing_metadata(((STATUS_DETAILS, details),))
            await context.abort(RETRY_CODES[number], words)
            raise AssertionError("abort raises") from None
        if not receipt.rejected:
            return b""
        count = sum(count for _, count in receipt.rejected)
        return otlp_wire.partial_success(count, describe_rejected(receipt))


async def open_door(
    address: str,
    receiver: Receiver,
    limits: GatewayConfig,
    tls: tuple[Path | None, Path | None, Path | None],
) -> Callable[[float], Awaitable[None]]:
    """Listen, and return what stops it with a grace in seconds. Raises: OSError."""
    server = grpc.aio.server(
        handlers=(MetricsService(receiver),),
        maximum_concurrent_rpcs=limits.requests_in_flight_max,
        options=(
            ("grpc.max_receive_message_length", limits.body_bytes_max),
            ("grpc.max_metadata_size", limits.header_bytes_max),
            ("grpc.so_reuseport", 0),
        ),
    )
    certificate, key, client_ca = tls
    try:
        if certificate is None or key is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, _credentials(certificate, key, client_ca))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} for gRPC: {error}") from None
    await server.start()

    async def stop(grace_s: float) -> None:
        await server.stop(grace_s)

    return stop


def _credentials(certificate: Path, key: Path, client_ca: Path | None) -> Any:
    """Credentials that are read again for each handshake after a change of the files."""

    def configuration() -> Any:
        return grpc.ssl_server_certificate_configuration(
            [(key.read_bytes(), certificate.read_bytes())],
            None if client_ca is None else client_ca.read_bytes(),
        )

    seen = [_stamp(certificate, key)]

    def changed() -> Any:
        try:
            stamp = _stamp(certificate, key)
            if stamp == seen[0]:
                return None
            fresh = configuration()
        except OSError:
            return None  # a file is being replaced: the old one serves this handshake
        seen[0] = stamp
        return fresh

    return grpc.dynamic_ssl_server_credentials(
        configuration(), changed, require_client_authentication=client_ca is not None
    )


def _stamp(certificate: Path, key: Path) -> tuple[int, int]:
    return certificate.stat().st_mtime_ns, key.stat().st_mtime_ns
