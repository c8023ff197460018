"""The read side's HTTP: one peer, kept connections, withdrawal by going away."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from sluiceway.query.api.app import Call, Reply
from sluiceway.serve.http import JOINED_BYTES_MAX, serve

Story = Callable[[str, list[Call], asyncio.Event], Awaitable[None]]


def run(tmp_path: Path, story: Story) -> None:
    async def main() -> None:
        path, calls, stop = str(tmp_path / "r.sock"), list[Call](), asyncio.Event()

        async def answer(call: Call) -> Reply:
            calls.append(call)
            if call.path == "/hang":
                while not call.cancel.cancelled():
                    await asyncio.sleep(0.005)
            if call.path == "/slow":
                await asyncio.sleep(0.1)
            if call.path == "/fault":
                raise RuntimeError("a fault of ours")
            if call.path == "/large":
                return Reply(200, b"x" * (JOINED_BYTES_MAX + 1))
            return Reply(503 if call.path == "/busy" else 200, call.body or b"{}", retry=True)

        serving = asyncio.ensure_future(serve(answer, path, stop))
        while not Path(path).exists():
            await asyncio.sleep(0.005)
        try:
            await asyncio.wait_for(story(path, calls, stop), 10)
        finally:
            stop.set()
            await serving

    uvloop.run(main())


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """(status, head in lower case, body)."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
    return int(head.split()[1]), head, await reader.readexactly(length)


def test_requests_follow_each_other_on_a_connection(tmp_path: Path) -> None:
    async def story(path: str, calls: list[Call], _: asyncio.Event) -> None:
        assert Path(path).stat().st_mode & 0o077 == 0
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /a%20b?x=%7B HTTP/1.1\r\nX-Kept: 1\r\n\r\n")
        status, _head, body = await read_answer(reader)
        assert (status, body) == (200, b"{}")
        writer.write(b"POST /busy HTTP/1.1\r\ncontent-length: 4\r\n\r\nab")
        await asyncio.sleep(0.02)
        writer.write(b"cd")
        status, head, body = await read_answer(reader)
        assert (status, body) == (503, b"abcd")
        assert b"retry-after: 1" in head
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        assert len((await read_answer(reader))[2]) == JOINED_BYTES_MAX + 1
        writer.write(b"GET /fault HTTP/1.1\r\n\r\n")
        assert (await read_answer(reader))[0] == 500
        first, second = calls[:2]
        assert (first.method, first.path, first.query) == ("GET", "/a b", b"x=%7B")
        assert first.headers == {b"x-kept": b"1"}
        assert (second.method, second.body) == ("POST", b"abcd")
        writer.close()

    run(tmp_path, story)


def test_who_goes_away_withdraws_the_question(tmp_path: Path) -> None:
    async def story(path: str, calls: list[Call], _: asyncio.Event) -> None:
        _reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /hang HTTP/1.1\r\n\r\n")
        while not calls:
            await asyncio.sleep(0.005)
        assert not calls[0].cancel.cancelled()
        writer.close()
        while not calls[0].cancel.cancelled():
            await asyncio.sleep(0.005)

    run(tmp_path, story)


def test_what_is_not_a_gateway_is_cut(tmp_path: Path) -> None:
    async def story(path: str, calls: list[Call], _: asyncio.Event) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"nonsense\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /hang HTTP/1.1\r\n\r\nGET /hang HTTP/1.1\r\n\r\n")
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        writer.close()
        assert all(call.cancel.cancelled() for call in calls)

    run(tmp_path, story)


def test_what_runs_may_end(tmp_path: Path) -> None:
    async def story(path: str, calls: list[Call], stop: asyncio.Event) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /slow HTTP/1.1\r\n\r\n")
        while not calls:
            await asyncio.sleep(0.005)
        stop.set()
        assert (await read_answer(reader))[0] == 200
        writer.close()

    run(tmp_path, story)
