"""The contract of the role `ObjectStore`, over every backend: a directory of ours, and through
obstore memory, a directory, and S3 as two servers speak it (moto; SeaweedFS, the real one)."""

from __future__ import annotations

import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.seaweed import Seaweed
from sluiceway.errors import BackendUnavailable
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.interface import (
    BadObjectName,
    ObjectExists,
    ObjectFacts,
    ObjectMissing,
    ObjectStore,
)

pytest.importorskip("obstore", reason="obstore is not installed: pip install sluiceway[objects]")
from sluiceway.objects.remote import RemoteObjects

BACKENDS = ("embedded", "memory", "file", "moto", "seaweedfs")
PART_BYTES = 5 * 2**20
"""Longer objects go to S3 in parts."""


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with Seaweed(tmp_path_factory.mktemp("s3") / "seaweed") as seaweed:
        yield seaweed


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server that speaks S3, on loopback."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def s3(endpoint: str, bucket: str) -> RemoteObjects:
    options = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": "test",
        "secret_access_key": "test",
    }
    return RemoteObjects(f"s3://{bucket}/below", options)


def make_bucket(endpoint: str) -> str:
    boto3 = pytest.importorskip("boto3")
    bucket = f"objects-{uuid.uuid4().hex[:8]}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "embedded":
        return EmbeddedObjects(tmp_path)
    if request.param == "memory":
        return RemoteObjects("memory:///")
    if request.param == "file":
        return RemoteObjects(f"file://{tmp_path}")
    if request.param == "seaweedfs":
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        return RemoteObjects(f"s3://{seaweed.make_bucket('objects')}/below", seaweed.options)
    endpoint = request.getfixturevalue("s3_endpoint")
    return s3(endpoint, make_bucket(endpoint))


def test_what_is_put_is_got(store: ObjectStore) -> None:
    store.put("a/b=c/d%20e.parquet", b"one")
    assert store.get("a/b=c/d%20e.parquet") == b"one"
    store.put("a/b=c/d%20e.parquet", b"other")
    assert store.get("a/b=c/d%20e.parquet") == b"other"
    assert store.facts("a/b=c/d%20e.parquet") == ObjectFacts("a/b=c/d%20e.parquet", 5)
    store.put("empty", b"")
    assert store.get("empty") == b""


def test_create_does_not_replace(store: ObjectStore) -> None:
    store.create("m/000000000001.json", b"first")
    with pytest.raises(ObjectExists):
        store.create("m/000000000001.json", b"second")
    assert store.get("m/000000000001.json") == b"first"


def test_of_many_that_create_one_wins(store: ObjectStore) -> None:
    won: list[int] = []

    def attempt(number: int) -> None:
        try:
            store.create("m/1", str(number).encode())
        except ObjectExists:
            return
        won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("m/1") == str(won[0]).encode()


def test_ranges(store: ObjectStore) -> None:
    store.put("r", bytes(range(100)))
    assert store.get_range("r", 10, 5) == bytes(range(10, 15))
    assert store.get_range("r", 95, 50) == bytes(range(95, 100))
    assert store.get_range("r", 200, 5) == b""


def test_what_is_not_there(store: ObjectStore) -> None:
    asks: list[Callable[[], object]] = [
        lambda: store.get("no/such"),
        lambda: store.get_range("no/such", 0, 1),
        lambda: store.facts("no/such"),
    ]
    for ask in asks:
        with pytest.raises(ObjectMissing):
            ask()
    store.delete("no/such")
    assert list(store.list("no")) == []


def test_lists_ascend_below_whole_parts(store: ObjectStore) -> None:
    for name in ("b/2", "b/10", "a", "b/c/1", "bb/1"):
        store.put(name, name.encode())
    assert [facts.name for facts in store.list()] == ["a", "b/10", "b/2", "b/c/1", "bb/1"]
    assert list(store.list("b")) == [
        ObjectFacts("b/10", 4),
        ObjectFacts("b/2", 3),
        ObjectFacts("b/c/1", 5),
    ]
    store.delete("b/2")
    assert [facts.name for facts in store.list("b")] == ["b/10", "b/c/1"]


def test_what_is_long_is_whole(store: ObjectStore) -> None:
    """Put in parts, created in one request; and what is there is not replaced."""
    data = bytes(range(256)) * (3 * PART_BYTES // 256)
    store.put("long", data)
    assert store.get("long") == data
    assert store.get_range("long", PART_BYTES - 3, 6) == data[PART_BYTES - 3 : PART_BYTES + 3]
    with pytest.raises(ObjectExists):
        store.create("long", data[::-1])
    store.create("long-too", data)
    with pytest.raises(ObjectExists):
        store.create("long-too", data[::-1])
    assert store.get("long-too") == data
    store.delete("long")
    store.create("long", b"again")
    assert store.get("long") == b"again"


def test_more_than_a_page_of_a_list(store: ObjectStore) -> None:
    names = [f"many/{number:05d}" for number in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b"x"), names))
    assert [facts.name for facts in store.list("many")] == names


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/./b", "a/", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(store: ObjectStore, name: str) -> None:
    with pytest.raises(BadObjectName):
        store.put(name, b"")
    with pytest.raises(BadObjectName):
        store.get(name)


def test_a_service_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluiceway.objects.remote.RETRIES_S_MAX", 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = s3(f"http://127.0.0.1:{unused.getsockname()[1]}", "bucket")
        with pytest.raises(BackendUnavailable):
            gone.get("a")


def test_a_crash_leaves_no_half_of_an_object(tmp_path: Path) -> None:
    """What a killed writer leaves behind is no object, and in nobody's way."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "~unfinished 1 0").write_bytes(b"half")
    store = EmbeddedObjects(tmp_path)
    assert list(store.list()) == []
    store.create("m/1", b"whole")
    assert [facts.name for facts in store.list()] == ["m/1"]
