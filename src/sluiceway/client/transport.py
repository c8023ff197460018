"""HTTP as the client uses it: one kept connection, answers under a cap.

Invariant: an answer past its cap is never held; a connection whose answer was not read to its end
is closed. A request is sent a second time only on a kept connection that was found dead.
"""

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from sluiceway.client.errors import AnswerTooLarge, Unavailable

DEAD_CONNECTION = (ConnectionError, http.client.BadStatusLine)
"""RemoteDisconnected is both."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Protocol):
    """Sends one request at a time. Blocks."""

    def send(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], bytes_max: int
    ) -> Reply:
        """Raises: Unavailable, AnswerTooLarge."""
        ...

    def abort(self) -> None:
        """End what another thread waits for."""
        ...

    def close(self) -> None: ...


class HttpTransport:
    """One connection to one server, opened when it is needed."""

    def __init__(
        self,
        url: str,
        key: str | None,
        request_s_max: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Raises: ValueError on a URL that is none."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not a URL of http or https: {url}")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ValueError("not a key: it has characters that no header may have")
        self._host, self._port = parts.hostname, parts.port
        self._prefix = parts.path.rstrip("/")
        self._request_s_max = request_s_max
        self._tls = None
        if parts.scheme == "https":
            self._tls = tls or ssl.create_default_context()
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], bytes_max: int
    ) -> Reply:
        while True:
            connection = self._connection
            kept = connection is not None
            if connection is None:
                connection = self._connection = self._connect()
            try:
                connection.request(
                    method, self._prefix + target, body or None, {**self._headers, **headers}
                )
                answer = connection.getresponse()
                told = answer.read(bytes_max + 1)
                if len(told) > bytes_max:
                    raise AnswerTooLarge(bytes_max)
            except DEAD_CONNECTION as error:
                self.close()
                if not kept:
                    raise self._unavailable(error) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise self._unavailable(error) from None
            except BaseException:
                self.close()
                raise
            else:
                names = {name.lower(): value for name, value in answer.getheaders()}
                return Reply(answer.status, names, told)

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._request_s_max, context=self._tls
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._request_s_max)

    def _unavailable(self, error: Exception) -> Unavailable:
        words = str(error) or type(error).__name__
        return Unavailable(f"no answer from {self._host}:{self._port or ''}: {words}")

    def abort(self) -> None:
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
