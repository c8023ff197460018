"""Bad input over HTTP: bombs are refused for what they claim, names never reach a path."""

import gzip
import os
import random
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from fakes.server import Server, remote_write, varint

T = 1_700_000_000
RSS_GROWTH_BYTES_MAX = 64 << 20
CPU_S_MAX = 0.05
TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("bombs") / "data") as running:
        running.write([({"__name__": "warm"}, [(T * 1000, 1.0)])])
        yield running


def memory_bytes(server: Server) -> int:
    assert server.process is not None
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def cpu_s(server: Server) -> float:
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def zlib_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b"\0" * (1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()


def zstd_window_bomb() -> bytes:
    """A frame that asks for a window of 2 GiB."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"


SNAPPY = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
RANDOM = random.Random(1).randbytes(100_000)


def bombs() -> list[tuple[str, str, dict[str, str], bytes]]:
    write, otlp = "/api/v1/write", "/v1/metrics"
    packed = {"Content-Type": "application/x-protobuf"}
    as_json = {"Content-Type": "application/json"}
    huge = zlib_bomb(256 << 20)
    return [
        ("snappy claims 2.5 GB", write, SNAPPY, varint(2_500_000_000) + b"\0" * 12),
        ("snappy claims 4 GB", write, SNAPPY, varint((1 << 32) - 1) + b"\0" * 12),
        ("snappy claims too much", write, SNAPPY, varint(1 << 62) + b"\0" * 12),
        ("noise", write, SNAPPY, RANDOM),
        ("empty", write, SNAPPY, b""),
        ("gzip", otlp, {**packed, "Content-Encoding": "gzip"}, huge),
        ("gzip of gzip", otlp, {**packed, "Content-Encoding": "gzip"}, gzip.compress(huge)),
        (
            "zstd",
            otlp,
            {**packed, "Content-Encoding": "zstd"},
            zstandard.ZstdCompressor().compress(b"\0" * (256 << 20)),
        ),
        ("zstd window", otlp, {**packed, "Content-Encoding": "zstd"}, zstd_window_bomb()),
        ("deep json", otlp, as_json, b'{"resourceMetrics":' + b"[" * 100_000),
        ("json noise", otlp, as_json, RANDOM),
        ("length past the limit", otlp, as_json, b" " * ((16 << 20) + 1)),
    ]


@pytest.mark.parametrize(("name", "path", "headers", "body"), bombs(), ids=lambda v: str(v)[:30])
def test_bombs(server: Server, name: str, path: str, headers: dict[str, str], body: bytes) -> None:
    before_bytes, before_s = memory_bytes(server), cpu_s(server)
    for _ in range(3):
        status, words = server.call("POST", path, body, headers)
        assert status in (400, 413), (name, status, words)
        assert len(words) < 2_000
    assert memory_bytes(server) - before_bytes <= RSS_GROWTH_BYTES_MAX
    assert (cpu_s(server) - before_s) / 3 <= CPU_S_MAX + 1 / TICK
    assert server.call("GET", "/ready?for=write")[0] == 200


def test_a_million_headers(server: Server) -> None:
    before_bytes = memory_bytes(server)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\n")
        try:
            for _ in range(1_000):
                connection.sendall(b"X-A: b\r\n" * 1_000)
        except OSError:
            pass  # cut, as it should be
        else:
            raise AssertionError("all of it was taken")
    assert memory_bytes(server) - before_bytes <= RSS_GROWTH_BYTES_MAX


HOSTILE = ["../../etc/passwd", "%2e%2e%2f", "a\x1b[31m", "<script>", '"\\', "e\u0301", "x" * 4000]


def test_hostile_values_are_data(server: Server) -> None:
    """They come back as they were, and nothing is named after them."""
    series = [({"__name__": "odd", "v": value}, [(T * 1000, 1.0)]) for value in HOSTILE]
    assert server.write(series) == 204
    assert sorted(server.get("label/v/values")) == sorted(HOSTILE)
    found = server.get("query", query="odd", time=T)["result"]
    assert sorted(row["metric"]["v"] for row in found) == sorted(HOSTILE)
    assert server.call("POST", "/admin/v1/flush?merge=all")[0] == 200
    names = [str(path.relative_to(server.directory)) for path in server.directory.rglob("*")]
    assert all(name.isascii() and "passwd" not in name and "xxx" not in name for name in names)
    text = server.call("GET", "/metrics")[1].decode()
    assert not any(value in text for value in HOSTILE)


@pytest.mark.parametrize(
    "query",
    ["+".join(["1"] * 10_000), "(" * 20_000, "(" * 20_000 + "1" + ")" * 20_000, "-" * 9_000],
)
def test_long_queries_are_quick(server: Server, query: str) -> None:
    from urllib.parse import urlencode

    body = urlencode({"query": query, "time": T}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    server.call("POST", "/api/v1/query", body, form)
    took_s = []
    for _ in range(3):
        started_s = time.monotonic()
        status, _ = server.call("POST", "/api/v1/query", body, form)
        took_s.append(time.monotonic() - started_s)
        assert status in (200, 400)
    assert min(took_s) < 0.5  # 50 ms of its own; the machine of the tests is shared


def test_what_prometheus_never_sends(server: Server) -> None:
    body = remote_write([({"__name__": "m"}, [(T * 1000, 1.0)])])
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
        assert server.call(method, "/api/v1/write", body, SNAPPY)[0] == 405
    for path in ("/api/v1/../../etc/passwd", "//", "/api/v1/label/%00/values", "/%2e%2e/"):
        assert server.call("GET", path)[0] in (200, 400, 404)
    doubled = (
        b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(doubled)
        assert b" 400 " in connection.recv(4096).split(b"\r\n")[0]
