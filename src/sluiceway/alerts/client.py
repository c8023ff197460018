"""The one HTTP client that connects to addresses out of a setting: guarded.

Every address that a name resolves to is judged, the judged address itself is connected to (a name
is never resolved twice), and the peer is judged once more. Plain HTTP goes to allowed networks
only; TLS is verified. No redirect is followed, no proxy of the environment is used. Invariant: a
request ends within `timeout_s`, whatever the other side does, and takes bounded memory.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sluiceway.alerts.addresses import Network, is_allowed, is_listed
from sluiceway.clock import Clock
from sluiceway.errors import SluicewayError

BODY_BYTES_MAX = 1 << 20
ANSWER_BYTES_MAX = 64 << 10
URL_BYTES_MAX = 2_000
ADDRESSES_MAX = 8
"""Of one name, tried in turn."""
PORTS = {"http": 80, "https": 443}
Resolve = Callable[..., Sequence[tuple[Any, ...]]]


class Forbidden(SluicewayError):
    """Where this would connect to is not allowed; nothing was sent."""


@dataclass(frozen=True)
class Endpoint:
    """A URL in parts, checked."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def endpoint_of(url: str) -> Endpoint:
    """Raises: ValueError, with what is wrong and without what the URL may hide."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or len(url) > URL_BYTES_MAX:
        raise ValueError("not a URL of http or https")
    if parts.username is not None or parts.password is not None:
        raise ValueError("no credentials in a URL: use authorization_file")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL is printable ASCII")
    query = f"?{parts.query}" if parts.query else ""
    port = parts.port if parts.port is not None else PORTS[parts.scheme]
    return Endpoint(parts.scheme, parts.hostname, port, f"{parts.path or '/'}{query}")


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    retry_after_s: float | None = None


class GuardedClient:
    """Posts. Thread-safe; every call blocks, at most `timeout_s` after the name is resolved."""

    def __init__(
        self,
        allowed: Sequence[Network],
        timeout_s: float,
        clock: Clock,
        resolve: Resolve = socket.getaddrinfo,
    ) -> None:
        self._allowed = tuple(allowed)
        self._timeout_s = timeout_s
        self._clock = clock
        self._resolve = resolve

    def post(
        self, to: Endpoint, body: bytes, headers: Mapping[str, str], ca_file: Path | None = None
    ) -> Reply:
        """Send a body once. Raises: Forbidden, OSError (TimeoutError and ssl.SSLError among
        them), ValueError (what came back is no HTTP)."""
        if len(body) > BODY_BYTES_MAX:
            raise ValueError(f"a body of {len(body)} bytes, the limit is {BODY_BYTES_MAX}")
        deadline_s = self._clock.monotonic_s() + self._timeout_s
        raw = self._connect(to, deadline_s)
        # A second handle of the same connection: closing it ends whatever waits on the first.
        with raw, raw.dup() as handle:
            over = threading.Event()
            watchdog = threading.Timer(
                max(0.0, deadline_s - self._clock.monotonic_s()), cut_off, (handle, over)
            )
            watchdog.daemon = True
            watchdog.start()
            try:
                return exchange(raw, to, body, headers, ca_file)
            except (OSError, http.client.HTTPException) as error:
                if over.is_set():
                    words = f"{to.host} took longer than {self._timeout_s} s"
                    raise TimeoutError(words) from None
                if isinstance(error, http.client.HTTPException):
                    raise ValueError(f"{to.host} answers no HTTP: {error!r}") from None
                raise
            finally:
                watchdog.cancel()

    def _connect(self, to: Endpoint, deadline_s: float) -> socket.socket:
        """A connection to the first address that may be connected to and answers."""
        found = self._resolve(to.host, to.port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        allowed = [entry for entry in found if self._may(to, str(entry[4][0]))]
        if not allowed:
            raise Forbidden(f"{to.host} is at no address that alerts.allow lets us connect to")
        for family, _, _, _, address in allowed[:ADDRESSES_MAX]:
            raw = socket.socket(family, socket.SOCK_STREAM)
            try:
                raw.settimeout(max(0.01, deadline_s - self._clock.monotonic_s()))
                raw.connect(address)
                if not self._may(to, str(raw.getpeername()[0])):
                    raise Forbidden(f"{to.host} led to another address than was asked for")
                return raw
            except OSError as error:
                raw.close()
                failure = error
            except BaseException:
                raw.close()
                raise
        assert failure is not None
        raise failure

    def _may(self, to: Endpoint, address: str) -> bool:
        if to.scheme == "http":
            return is_listed(address, self._allowed)
        return is_allowed(address, self._allowed)


def exchange(
    raw: socket.socket,
    to: Endpoint,
    body: bytes,
    headers: Mapping[str, str],
    ca_file: Path | None,
) -> Reply:
    """One request and its answer over a connection. Raises: OSError, HTTPException."""
    connection = http.client.HTTPConnection(to.host, to.port)
    connection.auto_open = 0
    sock: socket.socket = raw
    if to.scheme == "https":
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        sock = context.wrap_socket(raw, server_hostname=to.host)
    with sock:
        connection.sock = sock
        sent = {**headers, "Host": to.host_header, "Connection": "close"}
        connection.request("POST", to.path, body, sent)
        with connection.getresponse() as answer:
            answer.read(ANSWER_BYTES_MAX)
            return Reply(answer.status, seconds(answer.headers.get("Retry-After")))


def cut_off(handle: socket.socket, over: threading.Event) -> None:
    over.set()
    with suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


def seconds(text: str | None) -> float | None:
    """Of a Retry-After in seconds; dates are not taken."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 7):
        return None
    return float(text)
