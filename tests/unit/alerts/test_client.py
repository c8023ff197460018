"""The guarded client against real listeners: what it refuses, what it bears, what it sends."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from fakes.receiver import HttpReceiver
from sluiceway.alerts.addresses import is_allowed, networks
from sluiceway.alerts.client import (
    ANSWER_BYTES_MAX,
    BODY_BYTES_MAX,
    Forbidden,
    GuardedClient,
    Resolve,
    endpoint_of,
)
from sluiceway.clock import SystemClock

LOOPBACK = networks(["127.0.0.0/8", "::1"])
PUBLIC = "93.184.216.34"


def client(allowed: Any = LOOPBACK, resolve: Resolve = socket.getaddrinfo) -> GuardedClient:
    return GuardedClient(allowed, 1.0, SystemClock(), resolve)


def post(to: str, guarded: GuardedClient, **more: Any) -> int:
    return guarded.post(endpoint_of(to), b"{}", {"X-Test": "1"}, **more).status


def answering(*texts: str) -> Resolve:
    """A resolver that says these addresses, one call after another, the last for ever."""
    left = list(texts)

    def resolve(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        text = left.pop(0) if len(left) > 1 else left[0]
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, 0, 0, "", (a, port))
            for a in text.split()
        ]

    return resolve


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::1",
        "fe80::1",
        "fe80::1%lo",
        "fd00:ec2::254",
        "ff02::1",
        "localhost",
        "127.1",
        "0177.0.0.1",
    ],
)
def test_no_address_of_the_inside(text: str) -> None:
    assert not is_allowed(text, ())


def test_public_and_allowed_addresses() -> None:
    for text in (PUBLIC, "2606:2800:220:1::1", f"::ffff:{PUBLIC}", "64:ff9b::5db8:d822"):
        assert is_allowed(text, ())
    ten = networks(["10.0.0.0/8"])
    assert is_allowed("10.1.2.3", ten) and is_allowed("::ffff:10.1.2.3", ten)
    assert not is_allowed("192.168.0.1", ten)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.1", "2130706433"],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_canary_on_loopback_hears_nothing(host: str, scheme: str) -> None:
    with canary() as (port, hits):
        with pytest.raises((Forbidden, OSError)):
            post(f"{scheme}://{host}:{port}/", client(allowed=networks(["10.0.0.0/8"])))
        assert hits() == 0


def test_a_name_that_changes_its_mind_is_resolved_once() -> None:
    with canary() as (port, hits):
        rebinding = answering(PUBLIC, "127.0.0.1")
        with pytest.raises(OSError):
            post(f"https://rebind.test:{port}/", client((), rebinding))
        with pytest.raises(Forbidden):
            post(f"https://rebind.test:{port}/", client((), rebinding))
        for mixed in ("127.0.0.1 ::1", "::ffff:127.0.0.1", "169.254.169.254"):
            with pytest.raises(Forbidden):
                post(f"https://rebind.test:{port}/", client((), answering(mixed)))
        assert hits() == 0


def test_plain_http_goes_to_allowed_networks_only() -> None:
    with pytest.raises(Forbidden):
        post("http://plain.test/", client(LOOPBACK, answering(PUBLIC)))


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with canary() as (port, hits):
        location = {"Location": f"http://127.0.0.1:{port}/"}
        with HttpReceiver([(status, location) for status in (301, 302, 307, 308)]) as receiver:
            for status in (301, 302, 307, 308):
                assert post(f"http://127.0.0.1:{receiver.port}/hook?a=b", client()) == status
            assert {got.path for got in receiver.got} == {"/hook?a=b"}
            assert receiver.got[0].headers["Host"] == f"127.0.0.1:{receiver.port}"
        assert hits() == 0


def test_tls_is_verified(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    files = {}
    for name, of in {"right": authority, "wrong": other}.items():
        files[name] = tmp_path / f"{name}.pem"
        of.cert_pem.write_to_path(str(files[name]))
    with HttpReceiver(tls=context) as receiver:
        to = f"https://localhost:{receiver.port}/"
        assert post(to, client(), ca_file=files["right"]) == 200
        for ca_file in (files["wrong"], None):
            with pytest.raises(ssl.SSLCertVerificationError):
                post(to, client(), ca_file=ca_file)
        with pytest.raises(ssl.SSLCertVerificationError):
            post(f"https://127.0.0.1:{receiver.port}/", client(), ca_file=files["right"])
        assert len(receiver.got) == 1


def drip(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"H")
        time.sleep(0.05)


def silence(connection: socket.socket) -> None:
    time.sleep(5)


def headers_for_ever(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: " + b"x" * 60_000 + b"\r\n")


def body_for_ever(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * ANSWER_BYTES_MAX)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("answer", [drip, silence, headers_for_ever])
def test_a_hostile_answer_ends_in_time(
    answer: Callable[[socket.socket], None], scheme: str
) -> None:
    with listener(answer) as port:
        began_s = time.monotonic()
        with pytest.raises((OSError, ValueError)):
            post(f"{scheme}://127.0.0.1:{port}/", client())
        assert time.monotonic() - began_s < 2.0


def test_an_answer_without_end_is_cut() -> None:
    with listener(body_for_ever) as port:
        assert post(f"http://127.0.0.1:{port}/", client()) == 200


def test_a_body_is_small() -> None:
    with canary() as (port, hits):
        with pytest.raises(ValueError, match="the limit is"):
            to = endpoint_of(f"http://127.0.0.1:{port}/")
            client().post(to, b"x" * (BODY_BYTES_MAX + 1), {})
        assert hits() == 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/",
        "file:///etc/passwd",
        "http:///x",
        "gopher://a",
        "http://user:pass@host/",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://host:99999/",
        "http://h\u00f6st/",
        "https://host/" + "x" * 3000,
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        endpoint_of(url)


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """One connection is answered by a function, which may go on for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                connection = server.accept()[0]
                with connection:
                    answer(connection)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
    thread.join(0.1)


@contextmanager
def canary() -> Iterator[tuple[int, Callable[[], int]]]:
    """A listener on every address of this machine that nobody should reach."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        server.setblocking(False)
        count = 0

        def hits() -> int:
            nonlocal count
            time.sleep(0.02)
            while True:
                try:
                    server.accept()[0].close()
                except BlockingIOError:
                    return count
                count += 1

        yield int(server.getsockname()[1]), hits
