"""The HTTP server and the proxy over real sockets: slow heads, long ones, streams, departures."""

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop

from fakes.gateway import FakeShard
from sluiceway.clock import SystemClock
from sluiceway.gateway.acks import Acks
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import GatewayApp
from sluiceway.gateway.held import HELD_S_MAX, SPREAD_S
from sluiceway.gateway.keys import Keyring
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.gateway.proxy import ANSWER_BUFFER_BYTES_MAX, ReadProxy
from sluiceway.gateway.receive import Receiver
from sluiceway.gateway.server import HttpServer, http_server, listen
from sluiceway.telemetry import Metrics


class ReadFake:
    """A read side: echoes, streams, or hangs until its client goes."""

    def __init__(self) -> None:
        self.gone = 0
        self.heads: list[dict[bytes, bytes]] = []
        self.connections: set[Any] = set()
        self.end_gateway: Callable[[], None] = lambda: None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.heads.append(dict(scope["headers"]))
        self.connections.add(id(receive.__self__.transport))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/api/v1/hang":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone += 1
            return
        if scope["path"] == "/api/v1/broken":
            headers = [(b"content-length", b"8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            return  # the server closes the connection: the answer is not whole
        if scope["path"] == "/api/v1/large":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(64):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        answer = scope["query_string"] + b"|" + body
        headers = [(b"content-length", b"%d" % len(answer)), (b"x-kept", b"1")]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


Story = Callable[[int, ReadFake, FakeShard], Awaitable[None]]


def run(tmp_path: Path, story: Story, limits: GatewayConfig | None = None) -> None:
    limits = limits or GatewayConfig()

    async def main() -> None:
        clock, metrics, keyring, shard = SystemClock(), Metrics(), Keyring(None), FakeShard()
        acks = Acks(shard, clock, 5.0)
        acks.start()
        admission = Admission(limits, clock, random.Random(1))
        receiver = Receiver(shard, acks, admission, keyring, limits, clock, metrics)
        proxy = ReadProxy(str(tmp_path / "r.sock"), limits)
        app = GatewayApp(receiver, proxy, keyring, {}, metrics)
        server = http_server(app, limits, None, 2.0, app)
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        fake = ReadFake()
        fake.end_gateway = lambda: setattr(server, "should_exit", True)
        upstream = HttpServer(
            uvicorn.Config(
                fake,
                uds=str(tmp_path / "r.sock"),
                http="httptools",
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
            )
        )
        tasks = [
            asyncio.ensure_future(server.serve([listener])),
            asyncio.ensure_future(upstream.serve()),
        ]
        while not (server.started and upstream.started):
            await asyncio.sleep(0.01)
        try:
            await asyncio.wait_for(story(port, fake, shard), 15)
        finally:
            proxy.close()
            acks.stop()
            receiver.close()
            server.should_exit = upstream.should_exit = True
            server.force_exit = upstream.force_exit = True
            await asyncio.gather(*tasks)

    uvloop.run(main())


async def talk(port: int, request: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def answered(reader: asyncio.StreamReader) -> bytes:
    """One whole answer of a connection that stays."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


def get(path: str, extra: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{extra}\r\n".encode()


def post(body: bytes, extra: bytes = b"") -> bytes:
    head = b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\n" + extra
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_without_room_a_head_is_refused_and_its_connection_goes_on(tmp_path: Path) -> None:
    """One is in flight and one waits: the third is refused before its body came, which is passed
    over, and so is a fourth on the same connection; then there is room."""

    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        shard.auto = False
        waiting = []
        for number in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(b"held"))
            waiting.append((reader, writer))
            await asyncio.sleep(0.05)
            assert len(shard.bodies) == 1, number
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b"z" * 300_000
        whole = post(body)
        writer.write(whole[:1_000])
        for _ in range(2):
            answer = await answered(reader)
            assert answer.startswith(b"HTTP/1.1 503"), answer
            assert b"retry-after: " in answer and b"too many requests wait for room" in answer
            # The rest of that body, and the next head right behind it in the same piece.
            writer.write(whole[1_000:] + whole[:1_000])
        assert (await answered(reader)).startswith(b"HTTP/1.1 503")
        assert len(shard.bodies) == 1, "nothing of them was taken"
        shard.auto = True
        shard.commit()
        for other, _ in waiting:
            assert (await answered(other)).startswith(b"HTTP/1.1 204")
        writer.write(whole[1_000:] + whole)
        assert (await answered(reader)).startswith(b"HTTP/1.1 204")
        assert [len(taken[0]) for taken in shard.bodies] == [4, 4, len(body)]
        for _, other in (*waiting, (reader, writer)):
            other.close()

    run(tmp_path, story, GatewayConfig(requests_in_flight_max=1, parked_max=2, keep_alive_s=2))


async def hold_two(port: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connections whose requests wait: one in flight, one parked."""
    held = []
    for _ in range(2):
        held.append(await asyncio.open_connection("127.0.0.1", port))
        held[-1][1].write(post(b"held"))
        await asyncio.sleep(0.05)
    return held


def test_who_comes_back_too_early_is_answered_when_there_is_room(tmp_path: Path) -> None:
    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        shard.auto = False
        held = await hold_two(port)
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked_s = loop.time()
        writer.write(post(b"again"))
        assert (await answered(reader)).startswith(b"HTTP/1.1 503")
        assert loop.time() - asked_s < SPREAD_S + 0.2
        writer.write(post(b"again"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answered(reader), SPREAD_S + 0.2)
        shard.auto = True
        shard.commit()
        told_s = loop.time()
        assert (await answered(reader)).startswith(b"HTTP/1.1 503")
        assert loop.time() - told_s < HELD_S_MAX / 2
        for _ in range(3):
            writer.write(post(b"now"))
            assert (await answered(reader)).startswith(b"HTTP/1.1 204")
        for other, _ in held:
            assert (await answered(other)).startswith(b"HTTP/1.1 204")
        for _, other in (*held, (reader, writer)):
            other.close()

    run(tmp_path, story, GatewayConfig(requests_in_flight_max=1, parked_max=2, parked_s_max=10.0))


def test_whoever_is_held_may_go(tmp_path: Path) -> None:
    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        shard.auto = False
        held = await hold_two(port)
        for tries in (1, 2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(tries - 1):
                writer.write(post(b"again"))
                assert (await answered(reader)).startswith(b"HTTP/1.1 503")
            writer.write(post(b"again"))
            await asyncio.sleep(0.05)
            writer.transport.abort()
        await asyncio.sleep(SPREAD_S)
        shard.auto = True
        shard.commit()
        for other, one in held:
            assert (await answered(other)).startswith(b"HTTP/1.1 204")
            one.close()

    run(tmp_path, story, GatewayConfig(requests_in_flight_max=1, parked_max=2))


def test_who_does_not_wait_for_an_answer_gets_all_of_them_in_order(tmp_path: Path) -> None:
    """Requests behind one whose refusal is held: writes, a question, and bytes that are none."""

    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        shard.auto = False
        held = await hold_two(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        question = b"GET /api/v1/query?late HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(post(b"one") + post(b"two") + post(b"three") + question)
        for _ in range(3):
            answer = await asyncio.wait_for(answered(reader), HELD_S_MAX)
            assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: " in answer
        assert (await asyncio.wait_for(answered(reader), 1)).endswith(b"late|")
        writer.write(post(b"again") + b"no request\r\n\r\n")
        assert (await asyncio.wait_for(answered(reader), 1)).startswith(b"HTTP/1.1 503")
        assert (await asyncio.wait_for(reader.read(), 1)).startswith(b"HTTP/1.1 400")
        assert len(shard.bodies) == 1
        for _, other in (*held, (reader, writer)):
            other.close()

    run(tmp_path, story, GatewayConfig(requests_in_flight_max=1, parked_max=2, parked_s_max=10.0))


def test_whoever_is_held_when_the_server_ends_hears_of_it(tmp_path: Path) -> None:
    async def story(port: int, read: ReadFake, shard: FakeShard) -> None:
        shard.auto = False
        held = await hold_two(port)
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in opened:
            writer.write(post(b"again"))
        await asyncio.sleep(0.05)
        read.end_gateway()
        for reader, _ in opened:
            answer = await asyncio.wait_for(reader.read(), 1)
            assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: " in answer, answer
        for _, other in (*held, *opened):
            other.close()

    run(tmp_path, story, GatewayConfig(requests_in_flight_max=1, parked_max=2, parked_s_max=10.0))


def test_many_connections_at_once_are_taken_in_few_rounds(tmp_path: Path) -> None:
    """libuv takes one of a listener in a round; each round here is kept busy for 20 ms."""

    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        loop = asyncio.get_running_loop()
        busy = True

        def work() -> None:
            time.sleep(0.02)
            if busy:
                loop.call_soon(work)

        def client() -> float:
            began_s = time.monotonic()
            opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
            for one in opened:
                one.sendall(get("/"))
            for one in opened:
                assert one.recv(100).startswith(b"HTTP/1.1 200")
                one.close()
            return time.monotonic() - began_s

        loop.call_soon(work)
        took_s = await asyncio.to_thread(client)
        busy = False
        assert took_s < 3.0, "one a round would be 6 s"

    run(tmp_path, story)


def test_heads_of_one_round_are_refused_before_they_are_tasks(tmp_path: Path) -> None:
    """All of them are read before the first is let in: the room is counted at the head."""

    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        shard.auto = False
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        await asyncio.sleep(0.1)
        for _, writer in opened:
            writer.transport.write(post(b"at once"))
        time.sleep(0.1)  # they are all there when the loop looks
        await asyncio.sleep(0.3)
        assert len(shard.bodies) == 10
        shard.auto = True
        shard.commit()
        answers = [await answered(reader) for reader, _ in opened]
        taken = sum(answer.startswith(b"HTTP/1.1 204") for answer in answers)
        assert sum(answer.startswith(b"HTTP/1.1 503") for answer in answers) == 60 - taken
        assert 10 < taken < 40
        for _, writer in opened:
            writer.close()

    run(tmp_path, story, GatewayConfig(requests_in_flight_max=12, parked_max=10))


def test_a_refused_body_that_never_comes_ends_its_connection(tmp_path: Path) -> None:
    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        shard.auto = False
        held = await hold_two(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b"z" * 1_000)[:-500])
        assert (await answered(reader)).startswith(b"HTTP/1.1 503")
        writer.write(b"z")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        for _, other in (*held, (reader, writer)):
            other.close()

    run(tmp_path, story, GatewayConfig(requests_in_flight_max=1, parked_max=2, keep_alive_s=3))


def test_a_write_over_a_socket(tmp_path: Path) -> None:
    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        head = b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        body = b"z" * 200_000
        answer = await talk(port, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.startswith(b"HTTP/1.1 204")
        assert shard.bodies[0][0] == body
        chunked = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        answer = await talk(port, head + chunked)
        assert answer.startswith(b"HTTP/1.1 204")
        assert shard.bodies[1][0] == b"abcde"

    run(tmp_path, story)


def test_early_refusal_keeps_the_connection(tmp_path: Path) -> None:
    async def story(port: int, _: ReadFake, shard: FakeShard) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % 5_000_000 + b"x" * 5_000_000)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(length)
        writer.write(head % 3 + b"abc")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        writer.close()
        assert [body for body, *_ in shard.bodies] == [b"abc"]

    run(tmp_path, story, GatewayConfig(body_bytes_max=1_000_000))


def test_slow_and_long_heads_are_cut(tmp_path: Path) -> None:
    async def story(port: int, _: ReadFake, __: FakeShard) -> None:
        started_s = asyncio.get_running_loop().time()
        assert await talk(port, b"") == b""
        assert await talk(port, b"GET / HTTP/1.1\r\nHost") == b""
        assert asyncio.get_running_loop().time() - started_s < 8
        long = get("/", f"X-Long: {'a' * 5000}\r\n")
        assert (await talk(port, long)).startswith(b"HTTP/1.1 400")
        many = get("/", "".join(f"X-{i}: {'b' * 20}\r\n" for i in range(100)))
        assert (await talk(port, many)).startswith(b"HTTP/1.1 400")
        assert (await talk(port, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert (await talk(port, get("/"))).startswith(b"HTTP/1.1 200")
        # A second head on a kept connection has the same time.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()

    run(tmp_path, story, GatewayConfig(header_s_max=0.3, header_bytes_max=2048))


def test_the_proxy_hands_on_bytes(tmp_path: Path) -> None:
    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        extra = "X-Sluiceway-Tenant: evil\r\nAuthorization: Bearer secret\r\nCookie: a=b\r\n"
        answer = await talk(port, get("/api/v1/echo?q=%7Bx%7D", extra))
        assert answer.startswith(b"HTTP/1.1 201")
        assert answer.endswith(b"q=%7Bx%7D|")
        assert b"x-kept: 1" in answer
        assert fake.heads[0][b"x-sluiceway-tenant"] == b"default"
        assert not {b"authorization", b"cookie"} & set(fake.heads[0])
        body = b"query=up"
        head = b"POST /api/v1/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        answer = await talk(port, head + b"Content-Length: 8\r\n\r\n" + body)
        assert answer.endswith(b"|query=up")

    run(tmp_path, story)


def test_the_proxy_keeps_its_connection(tmp_path: Path) -> None:
    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _number in range(3):
            writer.write(b"GET /api/v1/echo?q HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = await reader.read(4096)  # head and body leave together
            assert answer.endswith(b"\r\n\r\nq|")
        writer.close()
        assert len(fake.connections) == 1

    run(tmp_path, story)


def test_what_stands_alone_does_not_wait_for_a_body(tmp_path: Path) -> None:
    """A head that answers HEAD, and the word that a body may come."""

    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        head = b"POST /api/v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n"
        writer.write(head + b"Content-Type: a/b\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"HTTP/1.1")  # a body that looks like a head
        assert (await reader.readuntil(b"|HTTP/1.1")).startswith(b"HTTP/1.1 201")
        assert fake.heads[0][b"content-type"] == b"a/b"
        # Two at once: each head goes before its own body.
        writer.write(get("/api/v1/echo?1").replace(b"Connection: close\r\n", b"") + get("/"))
        answers = await reader.read()
        assert answers.count(b"HTTP/1.1 2") == 2
        assert answers.index(b"\r\n\r\n1|") < answers.index(b"Sluiceway.")
        writer.close()

    run(tmp_path, story)


def test_what_we_ask_ourselves_keeps_its_connection(tmp_path: Path) -> None:
    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        proxy = ReadProxy(str(tmp_path / "r.sock"), GatewayConfig())
        for _number in range(3):
            assert await proxy.fetch("/api/v1/echo") == (201, b"|")
        assert len(fake.connections) == 1
        with pytest.raises(TimeoutError):
            await proxy.fetch("/api/v1/hang", 0.1)
        assert await proxy.fetch("/api/v1/echo") == (201, b"|")  # not the answer to the other
        proxy.close()

    run(tmp_path, story)


def test_the_proxy_streams_and_holds_back(tmp_path: Path) -> None:
    async def story(port: int, _: ReadFake, __: FakeShard) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/api/v1/large"))
        await asyncio.sleep(0.2)  # a slow reader; 4 MiB wait
        answer = await reader.read()
        writer.close()
        assert answer.count(b"x") >= 64 * 65536 > ANSWER_BUFFER_BYTES_MAX

    run(tmp_path, story)


def test_a_client_that_goes_withdraws_its_question(tmp_path: Path) -> None:
    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/api/v1/hang"))
        while not fake.heads:
            await asyncio.sleep(0.01)
        writer.close()
        while not fake.gone:
            await asyncio.sleep(0.01)

    run(tmp_path, story)


def test_an_answer_that_breaks_off_ends_the_connection(tmp_path: Path) -> None:
    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        answer = await talk(port, get("/api/v1/broken"))
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"half")

    run(tmp_path, story)


def test_a_read_body_that_does_not_come(tmp_path: Path) -> None:
    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        head = b"POST /api/v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nabc"
        assert (await talk(port, head)).startswith(b"HTTP/1.1 408")

    run(tmp_path, story, GatewayConfig(body_s_max=0.2))


def test_a_read_body_has_its_limit(tmp_path: Path) -> None:
    async def story(port: int, fake: ReadFake, _: FakeShard) -> None:
        head = b"POST /api/v1/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        answer = await talk(port, head + b"Content-Length: 20\r\n\r\n" + b"x" * 20)
        assert answer.startswith(b"HTTP/1.1 413")
        assert not fake.heads

    run(tmp_path, story, GatewayConfig(read_body_bytes_max=10))
