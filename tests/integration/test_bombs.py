"""Bad input over HTTP: bombs are refused for what they claim, names never reach a path."""

import gzip
import os
import random
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import grpc
import pytest
import zstandard

from fakes.remote_write import field, varint
from fakes.server import Server, free_port, remote_write

T = 1_700_000_000
RSS_GROWTH_BYTES_MAX = 64 << 20
CPU_S_MAX = 0.05
TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("bombs") / "data") as running:
        running.write([({"__name__": "warm"}, [(T * 1000, 1.0)])])
        yield running


def memory_bytes(server: Server, field_name: str = "VmRSS:") -> int:
    assert server.process is not None
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith(field_name):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field_name}")


def grown_bytes(server: Server, before_bytes: int) -> int:
    """How far its memory went above that at any moment since the server started."""
    return memory_bytes(server, "VmHWM:") - before_bytes


def cpu_s(server: Server) -> float:
    assert server.process is not None
    return cpu_of_s(server.process.pid)


def cpu_of_s(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def zlib_bomb(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = b"\0" * (1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(size >> 20)) + packer.flush()


def zstd_window_bomb() -> bytes:
    """A frame that asks for a window of 2 GiB."""
    return b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"


def nested_values(depth: int) -> bytes:
    """An OTLP request whose one attribute is a list in a list in a list ..."""
    size, heads = 3, []
    for _ in range(depth):
        for number in (1, 5):  # ArrayValue.values, AnyValue.array_value
            head = varint(number << 3 | 2) + varint(size)
            heads.append(head)
            size += len(head)
    value = b"".join(reversed(heads)) + field(1, b"x")
    point = field(7, field(1, b"a") + field(2, value)) + b"\x21" + b"\0" * 8
    gauge = field(1, b"n") + field(5, field(1, point))
    return field(1, field(2, field(2, gauge)))


def nested_json(opening: str, depth: int) -> bytes:
    """OTLP JSON up to an attribute's value, which never ends."""
    head = '{"resourceMetrics":[{"resource":{"attributes":[{"key":"a","value":'
    return (head + opening * depth).encode()


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
        ("deep json list", otlp, as_json, nested_json('{"arrayValue":{"values":[', 100_000)),
        (
            "deep json object",
            otlp,
            as_json,
            nested_json('{"kvlistValue":{"values":[{"key":"k","value":', 100_000),
        ),
        ("json noise", otlp, as_json, RANDOM),
        ("length past the limit", otlp, as_json, b" " * ((16 << 20) + 1)),
    ]


@pytest.mark.parametrize(
    ("name", "path", "headers", "body"), [pytest.param(*bomb, id=bomb[0]) for bomb in bombs()]
)
def test_bombs(server: Server, name: str, path: str, headers: dict[str, str], body: bytes) -> None:
    before_bytes, before_s = memory_bytes(server), cpu_s(server)
    for _ in range(3):
        status, words = server.call("POST", path, body, headers)
        assert status in (400, 413), (name, status, words)
        assert len(words) < 2_000
    assert grown_bytes(server, before_bytes) <= RSS_GROWTH_BYTES_MAX
    assert (cpu_s(server) - before_s) / 3 <= CPU_S_MAX + 1 / TICK
    assert server.call("GET", "/ready?for=write")[0] == 200


def test_a_value_nested_without_end(server: Server) -> None:
    """It is cut at a depth, not followed: the answer may be a success."""
    before_bytes, body = memory_bytes(server), nested_values(300_000)
    protobuf = {"Content-Type": "application/x-protobuf"}
    assert server.call("POST", "/v1/metrics", body, protobuf)[0] in (200, 400)
    assert grown_bytes(server, before_bytes) <= RSS_GROWTH_BYTES_MAX


def test_bombs_over_grpc(tmp_path: Path) -> None:
    port = free_port()
    with Server(tmp_path / "data", "--otlp-grpc", f"127.0.0.1:{port}") as server:
        before_bytes = memory_bytes(server)
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            export = channel.unary_unary(
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            )
            for body, packing in (
                (b"\0" * (256 << 20), grpc.Compression.Gzip),
                (RANDOM, grpc.Compression.NoCompression),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    export(body, compression=packing, timeout=60)
                code = refused.value.code()  # type: ignore[attr-defined]
                assert code in (
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    grpc.StatusCode.INVALID_ARGUMENT,
                )
        assert grown_bytes(server, before_bytes) <= RSS_GROWTH_BYTES_MAX
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
    assert grown_bytes(server, before_bytes) <= RSS_GROWTH_BYTES_MAX


HOSTILE = [
    "../../etc/passwd",
    "%2e%2e%2fpasswd",
    "%252e%252e%252fpasswd",
    "/etc/passwd",
    "a\x1b[31m",
    "two\nlines",
    "<script>alert(1)</script>",
    '"\\',
    "e\u0301",
    "\u00e9",
    "\ufb01",
    "x" * 4000,
    "a|b",
    "$(id)",
]


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


def test_hostile_names_open_nothing(server: Server, tmp_path: Path) -> None:
    """As metric, label name, value and path of the API: no file but the server's own is opened."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("NO STRACE: what is opened for hostile names is not watched here")
    log = tmp_path / "opened.log"
    calls = "trace=open,openat,unlink,unlinkat,rename,renameat,mkdir,mkdirat,execve,symlinkat"
    process_ids = [server.process.pid if server.process else 0, *server.children()]
    watched = [part for process_id in process_ids for part in ("-p", str(process_id))]
    tracer = subprocess.Popen([strace, "-f", "-qq", "-s", "200", "-o", log, "-e", calls, *watched])
    try:
        time.sleep(0.5)
        assert tracer.poll() is None
        for value in [*HOSTILE, "\0", "y" * 10_000]:
            rows = [
                {"__name__": value},
                {"__name__": "named", value: "1"},
                {"__name__": "valued", "v": value},
            ]
            for labels in rows:
                assert server.write([(labels, [(T * 1000, 1.0)])]) in (204, 400)
            for form in (value, value.replace("%", "%25")):
                encoded = quote(form, safe="")
                assert server.call("GET", f"/api/v1/label/{encoded}/values")[0] in (200, 400, 404)
                assert server.call("GET", f"/{encoded}")[0] in (200, 400, 404)
        assert server.call("POST", "/admin/v1/flush?merge=all")[0] == 200
    finally:
        tracer.terminate()
        tracer.wait(20)
    lines = log.read_text().splitlines()
    assert any(".block" in line for line in lines), "nothing was watched"
    for line in lines:
        for word in ("passwd", "xxxx", "yyyy", "script", "%2e", "execve", "alert", "$(id)"):
            assert word not in line, line


@pytest.mark.parametrize(
    "query",
    [
        "+".join(["1"] * 10_001),
        " and ".join(["m"] * 10_001),
        "-" * 20_000 + "1",
        "(" * 20_000,
        "(" * 20_000 + "1" + ")" * 20_000,
        "abs(" * 10_000 + "m" + ")" * 10_000,
        "[" * 20_000,
        '{a=~"' + "(" * 20_000 + "a" + ")" * 20_000 + '"}',
        '{a=~"(a{1000}){1000}"}',
    ],
    ids=lambda query: query[:12],
)
def test_long_queries_are_quick(server: Server, query: str) -> None:
    """10,000 operators, 20,000 brackets: answered or refused in 50 ms of the read side's time."""
    body = urlencode({"query": query, "time": T}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    (read_side,) = server.children()
    before_s = cpu_of_s(read_side)
    for _ in range(5):
        assert server.call("POST", "/api/v1/query", body, form)[0] in (200, 400, 422)
    assert (cpu_of_s(read_side) - before_s - 1 / TICK) / 5 <= CPU_S_MAX


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
