"""Gate and link over real sockets: who does not know the secret gets and gives nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sluiceway.serve.shard_link import (
    HEAD,
    Cluster,
    LinkRefused,
    ShardGate,
    ShardLink,
    meet_gate,
    meet_link,
    read_secret,
)
from sluiceway.telemetry import Metrics

ONE, OTHER = Cluster(b"1" * 32, os.urandom), Cluster(b"2" * 32, os.urandom)
Story = Callable[[ShardLink, Path, list[bytes]], Awaitable[None]]


def run(place: Path, gate_of: Cluster, link_of: Cluster, story: Story) -> Metrics:
    """A shard that answers each piece twice over, behind a gate; `story` has the link's socket."""
    metrics, heard = Metrics(), []

    async def shard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 20):
            heard.append(piece)
            writer.write(piece * 2)
        heard.append(b"(end)")
        writer.close()

    async def whole() -> None:
        server = await asyncio.start_unix_server(shard, place / "shard.sock")
        gate = ShardGate(gate_of, place / "shard.sock", metrics)
        port = await gate.start("127.0.0.1", 0)
        link = ShardLink(link_of, "s", ("127.0.0.1", port))
        await link.start(place / "link.sock")
        async with asyncio.timeout(20):
            await story(link, place / "link.sock", heard)
        for one in (link, gate):
            one.stop()
        server.close()

    asyncio.run(whole())
    return metrics


def test_bytes_go_both_ways_and_an_end_is_passed_on(tmp_path: Path) -> None:
    async def story(link: ShardLink, path: Path, heard: list[bytes]) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        sent = os.urandom(3 << 20)
        got = asyncio.ensure_future(reader.readexactly(6 << 20))
        writer.write(sent)
        answer = await got
        assert len(answer) == 2 * len(b"".join(heard))
        assert b"".join(heard) == sent
        assert link.failure is None
        writer.close()
        while heard[-1] != b"(end)":
            await asyncio.sleep(0.01)

    run(tmp_path, ONE, ONE, story)


def test_another_secret_opens_nothing(tmp_path: Path) -> None:
    async def story(link: ShardLink, path: Path, heard: list[bytes]) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"question")
        assert await reader.read() == b""
        assert link.failure
        assert heard == []
        writer.close()

    metrics = run(tmp_path, ONE, OTHER, story)
    assert metrics.value("sluiceway_shard_links_refused_total") == 1


async def met(gate_secret: bytes, link_secret: bytes, tamper: Callable[[bytes], bytes]) -> None:
    """The two halves of a handshake against each other; `tamper` has what the link sends."""
    gate_reader, link_reader = asyncio.StreamReader(), asyncio.StreamReader()

    class Wire:
        def __init__(self, to: asyncio.StreamReader, change: Callable[[bytes], bytes]) -> None:
            self.to, self.change = to, change

        def write(self, data: bytes) -> None:
            self.to.feed_data(self.change(data))

    to_gate, to_link = Wire(gate_reader, tamper), Wire(link_reader, lambda data: data)
    async with asyncio.timeout(5):
        gate = meet_link(gate_reader, to_link, gate_secret, b"g" * 32)  # type: ignore[arg-type]
        link = meet_gate(link_reader, to_gate, link_secret, b"l" * 32)  # type: ignore[arg-type]
        await asyncio.gather(gate, link)


def test_every_bit_of_the_handshake_counts() -> None:
    asyncio.run(met(b"s" * 32, b"s" * 32, lambda data: data))
    for bit in range(0, 72 * 8, 7):
        if len(HEAD) - 3 <= bit // 8 < len(HEAD):
            continue  # reserved

        def flip(data: bytes, bit: int = bit) -> bytes:
            held = bytearray(data)
            held[bit // 8] ^= 1 << bit % 8
            return bytes(held)

        with pytest.raises(LinkRefused):
            asyncio.run(met(b"s" * 32, b"s" * 32, flip))
    with pytest.raises(LinkRefused):
        asyncio.run(met(b"s" * 32, b"t" * 32, lambda data: data))


def test_a_secret_is_long_and_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"  " + b"x" * 32 + b"\n")
    path.chmod(0o640)
    with pytest.raises(ValueError, match="others may read it"):
        read_secret(path)
    path.chmod(0o600)
    assert read_secret(path) == b"x" * 32
    path.write_bytes(b"x" * 31)
    with pytest.raises(ValueError, match="32 or more"):
        read_secret(path)
