"""Objects on a service (S3, GCS, Azure and what speaks like them), in memory, or in a directory,
through obstore (optional: `pip install sluiceway[objects]`).

Invariant: a call ends: each request and all its retries together have a limit of time.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

from sluiceway.errors import BackendUnavailable
from sluiceway.objects.interface import (
    PART_BYTES,
    ObjectExists,
    ObjectFacts,
    ObjectMissing,
    check_name,
)

REQUEST_S_MAX = 30
RETRIES_S_MAX = 60
RETRIES_MAX = 5


class RemoteObjects:
    """A bucket and a prefix in it, or another store by its URL."""

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        """`url` as `s3://bucket/prefix`; `options` as obstore names them (`endpoint`, `region`,
        `access_key_id` ...); credentials come from the environment where none are given.
        Raises: ValueError (the URL names no place)."""
        # A refused TLS or a wrong region is known at the first call, not here.
        network: dict[str, Any] = {}
        if not url.startswith(("memory:", "file:")):
            network = {
                "client_options": {
                    "timeout": timedelta(seconds=REQUEST_S_MAX),
                    "allow_http": (options or {}).get("endpoint", "").startswith("http://"),
                },
                "retry_config": {
                    "max_retries": RETRIES_MAX,
                    "retry_timeout": timedelta(seconds=RETRIES_S_MAX),
                },
            }
            network.update(options or {})
        try:
            self._store = obstore.store.from_url(url, **network)
        except (BaseError, ValueError) as error:
            # Its words are pages of what it parsed.
            words = f"{url}: no place for objects (as s3://bucket/prefix): {first_line(error)}"
            raise ValueError(words) from None

    def create(self, name: str, data: bytes) -> None:
        with _failing(name):
            # One request: a create in parts could not be refused before the last.
            obstore.put(self._store, check_name(name), data, mode="create", use_multipart=False)

    def put(self, name: str, data: bytes) -> None:
        with _failing(name):
            obstore.put(self._store, check_name(name), data, chunk_size=PART_BYTES)

    def get(self, name: str) -> bytes:
        with _failing(name):
            return bytes(obstore.get(self._store, check_name(name)).bytes())

    def get_range(self, name: str, start: int, length: int) -> bytes:
        with _failing(name):
            size = self.facts(name).bytes
            length = min(length, size - start)
            if length <= 0:
                return b""
            return bytes(obstore.get_range(self._store, name, start=start, length=length))

    def facts(self, name: str) -> ObjectFacts:
        with _failing(name):
            return ObjectFacts(name, obstore.head(self._store, check_name(name))["size"])

    def list(self, prefix: str = "") -> Iterator[ObjectFacts]:
        found: list[ObjectFacts] = []
        with _failing(prefix):
            for batch in obstore.list(self._store, prefix=prefix.rstrip("/") or None):
                found.extend(ObjectFacts(meta["path"], meta["size"]) for meta in batch)
        yield from sorted(found, key=lambda facts: facts.name)

    def delete(self, name: str) -> None:
        try:
            with _failing(name):
                obstore.delete(self._store, check_name(name))
        except ObjectMissing:
            pass

    def sweep(self) -> int:
        """Parts of uploads that were cut off are the service's to remove: obstore cannot list
        them, and what is created goes in one request."""
        return 0


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def in_a_line(error: Exception) -> str:
    """What the store said, without the client's own insides behind it."""
    said = str(error).partition("Debug source:")[0]
    return " ".join(said.split())[:600] or type(error).__name__


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """obstore's errors as the role tells them."""
    try:
        yield
    except AlreadyExistsError:
        raise ObjectExists(name) from None
    except (NotFoundError, FileNotFoundError):
        raise ObjectMissing(name) from None
    except (BaseError, OSError) as error:
        raise BackendUnavailable(f"object {name}: {in_a_line(error)}") from error
