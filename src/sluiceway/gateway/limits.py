"""The gateway's limits, each with its default.

Invariant: nothing at the door is unbounded; every limit here has a name that the refusal quotes.
"""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class GatewayConfig:
    """Sizes in bytes, times in seconds. The decoder's own caps (32 MiB decoded) are Rust's."""

    body_bytes_max: int = 16 * MIB
    """A longer body is 413 before it is read."""
    bodies_in_flight_bytes_max: int = 128 * MIB
    """Bodies held at once, declared or read; past it requests are parked, then 503."""
    requests_in_flight_max: int = 1024
    """Write requests between their head and their answer."""
    parked_max: int = 512
    """Requests that wait, unread, for room or for their tenant's rate. One tenant gets half of the
    places, and whoever else comes some of the rest; past that, 503."""
    parked_s_max: float = 2.0
    tenants_max: int = 16_384
    """Tenants that send at once; the next one is 503."""
    body_s_max: float = 10.0
    """From the head to the last byte of the body; then 408."""
    ack_s_max: float = 30.0
    """Longest wait for the disk; then 503, and the data may still become durable."""
    inline_body_bytes_max: int = 128 * KIB
    """Longer bodies, and those that unpack to much, are decoded on a thread: the loop never stands
    for long."""
    decode_threads: int = 2
    connections_max: int = 10_240
    """Some thousand agents that come back at once must hear when to come again."""
    header_bytes_max: int = 32 * KIB
    """Sum of a request's header names and values, with its URL."""
    header_s_max: float = 5.0
    """From a connection's first byte of a head to its last: slow senders are cut."""
    keep_alive_s: float = 75.0
    retry_after_s_min: float = 1.0
    retry_after_s_max: float = 30.0
    read_requests_max: int = 256
    """Proxied read requests at once."""
    tenant_read_requests_max: int = 160
    """Of those, one tenant's."""
    read_body_bytes_max: int = 1 * MIB
    read_connections_idle_max: int = 32
