"""The real server: write, ask, kill, restart, drain; keys, TLS, doors."""

import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme

from fakes.server import Server, free_port, remote_write
from sluiceway.gateway.keys import new_key

T = 1_700_000_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as running:
        yield running


def numbered(count: int, time_s: int = T, value: float = 1.0) -> list[object]:
    return [({"__name__": "m", "i": str(i)}, [(time_s * 1000, value + i)]) for i in range(count)]


def test_what_was_acked_is_answered_at_once(server: Server) -> None:
    for step in range(20):
        assert server.write(numbered(5, T + step, step)) == 204
        assert server.values("m", T + step) == {str(i): step + i for i in range(5)}
    assert server.get("label/i/values") == ["0", "1", "2", "3", "4"]
    assert len(server.get("series", **{"match[]": "m"})) == 5
    found = server.get("query_range", query="sum(m)", start=T, end=T + 19, step=1)
    assert [float(v) for _, v in found["result"][0]["values"]] == [
        5 * step + 10 for step in range(20)
    ]


def test_nothing_acked_is_lost_by_kill(server: Server) -> None:
    for round_ in range(3):
        for step in range(10):
            assert server.write(numbered(3, T + round_ * 10 + step)) == 204
        server.kill()
        server.start()
        counts = server.values("count_over_time(m[1h])", T + 60)
        assert counts == {str(i): (round_ + 1) * 10 for i in range(3)}


def test_flush_restart_and_points_at_odd_times(server: Server) -> None:
    times_s = [-86_400, 0, 1, *(T - day * 86_400 for day in range(30))]
    for time_s in times_s:
        assert server.write([({"__name__": "odd"}, [(time_s * 1000, float(time_s))])]) == 204
    for stop in (server.stop, server.kill):
        status, _ = server.call("POST", "/admin/v1/flush?merge=all")
        assert status == 200
        for time_s in times_s:
            assert server.values("odd", time_s) == {"": float(time_s)}
        stop()
        server.start()
    for time_s in times_s:
        assert server.values("odd", time_s) == {"": float(time_s)}


def test_sigterm_drains_and_seals(server: Server) -> None:
    assert server.write(numbered(10)) == 204
    assert server.stop() < 10
    server.start()
    assert len(server.values("m", T)) == 10


def test_the_read_side_dies_and_comes_back(server: Server) -> None:
    assert server.write(numbered(1)) == 204
    for child in server.children():
        os.kill(child, signal.SIGKILL)
    assert server.write(numbered(2)) == 204  # acks do not notice
    assert server.call("GET", "/ready?for=write")[0] == 200
    server.wait_ready()
    assert len(server.values("m", T)) == 2
    assert server.metrics()["sluiceway_read_side_restarts_total"] == 1


def test_the_read_side_dies_with_its_parent(server: Server) -> None:
    children = server.children()
    server.kill()
    deadline_s = time.monotonic() + 30
    while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_one_server_a_directory(server: Server, tmp_path: Path) -> None:
    second = Server(server.directory).start(wait=False)
    assert second.process is not None
    assert second.process.wait(20) == 1
    assert server.write(numbered(1)) == 204
    assert server.values("m", T) == {"0": 1.0}


def test_errors_at_the_door(server: Server) -> None:
    assert server.call("POST", "/api/v1/write", b"garbage")[0] == 400
    assert server.call("POST", "/api/v1/write", b"\xff\xff\xff\xff\x7f" + b"x" * 40)[0] in (
        400,
        413,
    )
    nameless = [({"job": "a"}, [(T * 1000, 1.0)]), ({"__name__": "good"}, [(T * 1000, 1.0)])]
    status, words = server.call("POST", "/api/v1/write", remote_write(nameless))
    assert status == 400
    assert b"1 of 2 points refused" in words
    assert server.values("good", T) == {"": 1.0}
    status, body = server.call("GET", "/api/v1/query?query=sum(")
    assert (status, json.loads(body)["errorType"]) == (400, "bad_data")
    assert server.call("GET", "/api/v1/nothing")[0] == 404


def test_metrics_and_status(server: Server) -> None:
    assert server.write(numbered(3)) == 204
    server.values("m", T)
    metrics = server.metrics()
    assert metrics['sluiceway_write_requests_total{door="remote_write",status="204"}'] == 1
    assert metrics["sluiceway_journal_records_total"] == 1
    assert metrics["sluiceway_series"] == 3
    assert metrics['sluiceway_query_requests_total{endpoint="query",status="200"}'] == 1
    told = json.loads(server.call("GET", "/admin/v1/status")[1])
    assert told["ready"]
    from sluiceway.status import report

    text, well = report(f"127.0.0.1:{server.port}", None, None)
    assert well, text
    assert set(told["memory"]) == {"write", "read"}
    assert all(0 < used < limit for used, limit in told["memory"].values())
    # A refused point is news for a while, not for ever (tests/unit/serve/test_recent.py).
    nameless = remote_write([({"job": "a"}, [(T * 1000, 1.0)])])
    assert server.call("POST", "/api/v1/write", nameless)[0] == 400
    server.values("m", T)
    text, well = report(f"127.0.0.1:{server.port}", None, None)
    assert not well and "1 rejected in the last 5 min" in text, text
    ledger = server.get("ledger", raw_scan=1)
    assert "3" in json.dumps(ledger)


def test_a_query_in_flight_is_answered_when_the_whole_group_is_told_to_end(server: Server) -> None:
    """A service manager sends SIGTERM to both sides: the read side must not go first."""
    answers: list[tuple[int, bytes]] = []
    slow = "quantile_over_time(0.9, vector(time())[10900s:1s])"
    query = urlencode(
        {"query": slow, "start": T, "end": T + 10_900, "step": 1, "timeout": "1500ms"}
    )

    def ask() -> None:
        answers.append(server.call("GET", f"/api/v1/query_range?{query}"))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.4)
    assert server.process is not None
    os.kill(server.children()[0], signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    asking.join(20)
    status, body = answers[0]
    assert status == 200 or b"timed out" in body, answers
    assert server.process.wait(20) == 0


def test_a_withdrawn_query_frees_its_turn(server: Server) -> None:
    assert server.write(numbered(3)) == 204
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            gone.sendall(
                b"GET /api/v1/query?query=count_over_time(m[1000d:1s])&time=1700000000 "
                b"HTTP/1.1\r\nHost: a\r\n\r\n"
            )
    assert len(server.values("m", T)) == 3


def test_keys_tls_and_reload(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate, private = tmp_path / "c.pem", tmp_path / "k.pem"

    def issue() -> None:
        issued = authority.issue_cert("localhost", "127.0.0.1")
        private.write_bytes(issued.private_key_pem.bytes())
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    issue()
    key, text = new_key("default", "agent", ("write", "read"))
    (tmp_path / "keys.toml").write_text(text)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    class TlsServer(Server):
        def connection(self, timeout_s: float) -> http.client.HTTPConnection:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout_s, context=context
            )

    flags = ["--tls-cert", str(certificate), "--tls-key", str(private)]
    flags += ["--auth", "keys", "--auth-keys", str(tmp_path / "keys.toml")]
    with TlsServer(tmp_path / "data", *flags) as server:
        body = remote_write(numbered(1))
        assert server.call("POST", "/api/v1/write", body)[0] == 401
        bearer = {"Authorization": f"Bearer {key}"}
        assert server.call("POST", "/api/v1/write", body, bearer)[0] == 204
        path = f"/api/v1/query?query=m&time={T}"
        assert server.call("GET", path)[0] == 401
        status, answer = server.call("GET", path, headers=bearer)
        assert (status, len(json.loads(answer)["data"]["result"])) == (200, 1)
        assert server.call("POST", "/admin/v1/flush", headers=bearer)[0] == 403

        def serial() -> bytes:
            with (
                socket.create_connection(("127.0.0.1", server.port)) as raw,
                context.wrap_socket(raw, server_hostname="127.0.0.1") as wrapped,
            ):
                return wrapped.getpeercert(True) or b""

        before = serial()
        issue()
        deadline_s = time.monotonic() + 30
        while serial() == before:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        (tmp_path / "keys.toml").write_text("# revoked\n")
        while server.call("POST", "/api/v1/write", body, bearer)[0] != 401:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        # A connection that idles in a client's pool, where nobody listens, does not hold up an end.
        idle = server.connection(30.0)
        idle.request("GET", "/ready")
        assert idle.getresponse().read()
        assert server.stop() < 4.0
        idle.close()


def test_opentelemetry_over_http_and_grpc(tmp_path: Path) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
        OTLPMetricExporter as GrpcExporter,
    )
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
        OTLPMetricExporter as HttpExporter,
    )
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    grpc_port = free_port()
    with Server(tmp_path / "data", "--otlp-grpc", f"127.0.0.1:{grpc_port}") as server:
        exporters = {
            "http": HttpExporter(endpoint=f"http://127.0.0.1:{server.port}/v1/metrics"),
            "grpc": GrpcExporter(endpoint=f"http://127.0.0.1:{grpc_port}", insecure=True),
        }
        for name, exporter in exporters.items():
            reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
            provider = MeterProvider([reader], resource=Resource({"service.name": name}))
            counter = provider.get_meter("test").create_counter("requests", unit="1")
            counter.add(3, {"path": "/a"})
            provider.force_flush()
            provider.shutdown()
        now_s = time.time()
        for name in exporters:
            assert server.values(f'requests_total{{job="{name}",path="/a"}}', now_s) == {"": 3.0}


def test_client_certificates(tmp_path: Path) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    issued, mine = authority.issue_cert("127.0.0.1"), clients.issue_cert("agent@example.org")
    files = {"c.pem": issued.cert_chain_pems[0], "k.pem": issued.private_key_pem}
    for name, blob in {**files, "ca.pem": clients.cert_pem}.items():
        (tmp_path / name).write_bytes(blob.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)

    class TlsServer(Server):
        def connection(self, timeout_s: float) -> http.client.HTTPConnection:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout_s, context=context
            )

    flags = [
        f"--tls-{name}={tmp_path / file}"
        for name, file in (("cert", "c.pem"), ("key", "k.pem"), ("client-ca", "ca.pem"))
    ]
    server = TlsServer(tmp_path / "data", *flags)
    try:
        server.start(wait=False)
        deadline_s = time.monotonic() + 60
        refused = False
        while not refused and time.monotonic() < deadline_s:
            try:
                server.call("GET", "/healthz")
            except (ssl.SSLError, ConnectionResetError):
                refused = True
            except OSError:
                time.sleep(0.05)
        assert refused
        mine.configure_cert(context)
        server.wait_ready()
        assert server.write(numbered(1)) == 204
    finally:
        server.__exit__()


def test_series_max_lets_known_series_flow(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--series-max", "5") as server:
        assert server.write(numbered(5)) == 204
        server.values("m", T)
        assert server.write(numbered(8, T + 1)) == 204  # a budget is not the ack's to tell
        assert server.values("m", T + 1) == {str(i): 1.0 + i for i in range(5)}
        metrics = server.metrics()
        assert metrics['sluiceway_points_total{outcome="rejected"}'] == 3
        assert metrics["sluiceway_series_max"] == 5
        assert metrics["sluiceway_disk_bytes"] > 0


def test_settings_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sluiceway.toml"
    file.write_text(
        'memory_max = "1GiB"\n[gateway]\nbody_bytes_max = 1000\n[query]\nsteps_max = 3\n'
    )
    with Server(tmp_path / "data", "--config", str(file)) as server:
        assert server.call("POST", "/api/v1/write", b"x" * 1001)[0] == 413
        path = "/api/v1/query_range?query=1&start=0&end=10&step=1"
        assert server.call("GET", path)[0] == 400
        assert server.metrics()['sluiceway_memory_bytes_max{side="read"}'] == 256 << 20


def test_a_directory_of_a_newer_build_is_refused_by_name(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    with server:
        assert server.write(numbered(3)) == 204
        server.stop()
    block = next((tmp_path / "data" / "hot" / "metrics" / "blocks").iterdir())
    data = bytearray(block.read_bytes())
    data[8] += 1
    block.write_bytes(data)
    server.start(wait=False)
    assert server.process is not None
    assert server.process.wait(30) == 1
    assert "this build reads 1" in server.log_path.read_text().splitlines()[-1]
