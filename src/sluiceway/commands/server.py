"""A running server as the commands reach it: URL, key, certificate authority.

Invariant: a command ends in one line of words and status 1 when the server refuses; the server's
stable id is in it.
"""

import http.client
import json
import ssl
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

TIMEOUT_S = 30.0
ANSWER_BYTES_MAX = 64 << 20


_parts_said: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Server:
    """Where to ask, and with which key."""

    address: str
    key: str | None = None
    ca_file: str | None = None
    timeout_s: float = TIMEOUT_S
    of_all: bool = False
    """One of all partitions that are asked: nothing is said of its being a part."""

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        prefix: str = "/admin/v1",
        **parameters: str,
    ) -> Any:
        """`data` of the answer. A body in bytes is a document and sent as it is. Blocks.

        Raises: OSError in the server's words, ValueError.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        document = isinstance(body, bytes)
        data = body if body is None or document else json.dumps(body).encode()
        kind = "application/yaml" if document else "application/json"
        sent, part = self._send_for(method, f"{prefix}{path}{query}", data, kind)
        self._say_part(part)
        told = json.loads(sent)
        # What an answer lacks; never silently, as a part would pass for all.
        for warning in told.get("warnings", []):
            if part is None or not warning.startswith(part):
                print(f"sluiceway: {warning}", file=sys.stderr)
        return told["data"]

    def status(self) -> tuple[Any, str]:
        """What the process says of itself, and which partition it is; empty: not one of several.
        Blocks. Raises: as `ask`."""
        told, part = self._send_for("GET", "/admin/v1/status")
        return json.loads(told), part or ""

    def text(self, path: str) -> str:
        """An answer that has no envelope. Blocks. Raises: as `ask`."""
        return self._send("GET", path).decode()

    def get(self, path: str) -> bytes:
        """An answer's bytes as they are. Blocks. Raises: as `ask`."""
        return self._send("GET", path)

    def post(self, path: str) -> Any:
        """Have something done; what its answer has as `data`. Blocks. Raises: as `ask`."""
        return json.loads(self._send("POST", path, b"")).get("data", {})

    def _say_part(self, part: str | None) -> None:
        """Once a command: what a process with a part of the series says or does is no more."""
        if part is not None and not self.of_all and (self.address, part) not in _parts_said:
            _parts_said.add((self.address, part))
            print(f"sluiceway: {self.address} is {part} alone", file=sys.stderr)

    def _send(
        self,
        method: str,
        target: str,
        data: bytes | None = None,
        kind: str = "application/json",
    ) -> bytes:
        told, part = self._send_for(method, target, data, kind)
        self._say_part(part)
        return told

    def _send_for(
        self,
        method: str,
        target: str,
        data: bytes | None = None,
        kind: str = "application/json",
    ) -> tuple[bytes, str | None]:
        scheme = "https" if self.ca_file else "http"
        url = self.address if "://" in self.address else f"{scheme}://{self.address}"
        request = urllib.request.Request(f"{url.rstrip('/')}{target}", data=data, method=method)
        request.add_header("Content-Type", kind)
        if self.key:
            request.add_header("Authorization", f"Bearer {self.key}")
        context = None
        if url.startswith("https"):
            context = ssl.create_default_context(cafile=self.ca_file)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s, context=context) as answer:
                told: bytes = answer.read(ANSWER_BYTES_MAX)
                return told, answer.headers.get("x-sluiceway-part")
        except urllib.error.HTTPError as error:
            raise OSError(f"{error.code}: {_words(error.read(4096))}") from None
        except urllib.error.URLError as error:
            raise OSError(f"no answer from {url}: {error.reason}") from None
        except http.client.HTTPException as error:
            raise OSError(f"no answer from {url}: {error or type(error).__name__}") from None


def _words(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:300]
