"""Gate and link over real sockets: who does not know the secret gets and gives nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sluiceway.serve import shard_link
from sluiceway.serve.shard_link import (
    CONNECTIONS_MAX,
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


def run(
    place: Path, gate_of: Cluster, link_of: Cluster, story: Story, moved: list[int] | None = None
) -> Metrics:
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
        told = [] if moved is None else moved
        gate = ShardGate(gate_of, place / "shard.sock", metrics, None, told.append)
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

    moved: list[int] = []
    run(tmp_path, ONE, ONE, story, moved)
    assert sum(moved) == 9 << 20, "each way"


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

        async def proven() -> None:
            to_link.write(await gate)

        await asyncio.gather(proven(), link)


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


def open_sockets() -> int:
    places = (os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir())
    return sum(1 for place in places if "/socket:" in place)


async def within(condition: Callable[[], bool], why: str) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(why)


def gated(place: Path, story: Callable[[int], Awaitable[None]], answer: bytes = b"") -> None:
    """A gate to a shard that answers anything with `answer`; no shard where there is none."""

    async def shard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            writer.write(answer)
            await writer.drain()
            await reader.read(1)
        except OSError:
            pass
        writer.close()

    async def whole() -> None:
        server = None
        if answer:
            server = await asyncio.start_unix_server(shard, place / "shard.sock")
        gate = ShardGate(ONE, place / "shard.sock", Metrics())
        port = await gate.start("127.0.0.1", 0)
        async with asyncio.timeout(30):
            await story(port)
        gate.stop()
        if server is not None:
            server.close()

    asyncio.run(whole())


async def met_gate(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    await meet_gate(reader, writer, ONE.secret, os.urandom(32))
    return reader, writer


def test_a_gate_whose_shard_is_absent_is_not_reached(tmp_path: Path) -> None:
    async def story(port: int) -> None:
        link = ShardLink(ONE, "s", ("127.0.0.1", port))
        await link.look()
        assert link.failure

    gated(tmp_path, story)


def test_who_takes_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that are asked for and not read hold neither sockets nor a place at the gate."""
    monkeypatch.setattr(shard_link, "STALL_S_MAX", 0.3)

    async def story(port: int) -> None:
        before = open_sockets()
        slow = [await met_gate(port) for _ in range(20)]
        for _, writer in slow:
            writer.write(b"?")
        # Both ends of the slow peers' connections are ours: theirs stay, the gate's two go.
        await within(lambda: open_sockets() > before + 60, "all are served")
        await within(lambda: open_sockets() <= before + 20, "the gate lets go of them")
        for _, writer in slow:
            writer.transport.abort()

    gated(tmp_path, story, b"x" * (32 << 20))


def test_a_thousand_connections_leave_nothing_behind(tmp_path: Path) -> None:
    async def story(port: int) -> None:
        before = open_sockets()
        kept = [await met_gate(port) for _ in range(CONNECTIONS_MAX)]
        for _ in range(1_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""  # closed at once
            writer.close()
        for _, writer in kept:
            writer.close()
        await within(lambda: open_sockets() <= before, "sockets are left")
        for count in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.transport.abort()
            if count % 50 == 0:
                await asyncio.sleep(0.02)
        await within(lambda: open_sockets() <= before, "sockets are left")
        _, writer = await met_gate(port)  # and there is a place again
        writer.close()

    gated(tmp_path, story, b"x")


def test_a_silent_shard_is_not_waited_for_by_each_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_link, "HANDSHAKE_S_MAX", 0.3)

    async def silent() -> None:
        accepted = []
        server = await asyncio.start_server(lambda r, w: accepted.append(w), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = ShardLink(ONE, "s", ("127.0.0.1", port))
        await link.start(tmp_path / "link.sock")
        for _ in range(5):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "link.sock")
            assert await reader.read() == b""
            writer.close()
        assert len(accepted) == 1
        assert link.failure
        await link.look()  # a look asks again
        assert len(accepted) == 2
        link.stop()
        server.close()

    asyncio.run(silent())


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


def test_a_link_that_is_pointed_elsewhere_ends_no_answer(tmp_path: Path) -> None:
    """What is asked is answered where it was asked; an idle connection is closed, the next one
    goes to the new place."""

    async def whole() -> None:
        answers = {name: asyncio.Event() for name in ("old", "new")}
        ports = {}
        gates = []
        for name, may in answers.items():

            async def shard(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                name: str = name,
                may: asyncio.Event = may,
            ) -> None:
                while await reader.read(1 << 20):
                    await may.wait()
                    writer.write(name.encode())

            server = await asyncio.start_unix_server(shard, tmp_path / f"{name}.sock")
            gate = ShardGate(ONE, tmp_path / f"{name}.sock", Metrics())
            ports[name] = await gate.start("127.0.0.1", 0)
            gates += [gate, server.close]
        link = ShardLink(ONE, "p0", None)
        await link.start(tmp_path / "link.sock")
        reader, _ = await asyncio.open_unix_connection(tmp_path / "link.sock")
        assert await reader.read(10) == b""  # nobody is known yet
        assert link.failure
        link.point_at(("127.0.0.1", ports["old"]))
        busy, idle = [await asyncio.open_unix_connection(tmp_path / "link.sock") for _ in "12"]
        answers["old"].set()
        idle[1].write(b"?")
        assert await idle[0].read(10) == b"old"
        answers["old"].clear()
        busy[1].write(b"?")
        await asyncio.sleep(0.1)
        link.point_at(("127.0.0.1", ports["new"]))
        assert await asyncio.wait_for(idle[0].read(10), 5) == b""
        answers["new"].set()
        fresh = await asyncio.open_unix_connection(tmp_path / "link.sock")
        fresh[1].write(b"?")
        assert await fresh[0].read(10) == b"new"
        assert gates[0].links() == 1
        answers["old"].set()
        assert await busy[0].read(10) == b"old"
        busy[1].write(b"?")  # at once, before it is idle
        assert await asyncio.wait_for(busy[0].read(10), 0.4) == b""
        link.stop()
        for gate in gates:
            gate.stop() if isinstance(gate, ShardGate) else gate()

    asyncio.run(asyncio.wait_for(whole(), 20))
