"""The publisher: what is done is published, sooner or later, and by whomever it was done."""

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.tenants import tenancy
from sluiceway.errors import BackendUnavailable
from sluiceway.tenants import publisher as module
from sluiceway.tenants.model import Tenant
from sluiceway.tenants.publisher import Publisher


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def create(publisher: Publisher, name: str) -> None:
    with publisher.acting() as (store, _):
        store.create_tenant("test", Tenant(name))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK_S", 0.01)
    monkeypatch.setattr(module, "LOOK_S", 0.05)


def test_an_act_that_could_not_be_published_is_published_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = tenancy(tmp_path)
    publisher, reader = place.publisher(place.directory()), place.directory()
    create(publisher, "first")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(module, "publish", full)
        with pytest.raises(BackendUnavailable, match="No space left"):
            create(publisher, "second")
    reader.look()
    assert "second" not in reader.snapshot().tenants
    publisher.start()
    until(lambda: reader.look() and "second" in reader.snapshot().tenants)
    publisher.stop()


def test_a_change_made_by_hand_is_published(tmp_path: Path) -> None:
    place, _ = tenancy(tmp_path)
    publisher, reader = place.publisher(place.directory()), place.directory()
    create(publisher, "acme")
    publisher.start()
    connection = sqlite3.connect(place.database)
    with connection:
        connection.execute("UPDATE tenants SET plan = 'standard' WHERE name = 'acme'")
    connection.close()
    until(lambda: reader.look() and reader.plan("acme").name == "standard")
    publisher.stop()


def test_records_that_are_there_at_the_start_are_published(tmp_path: Path) -> None:
    place, _ = tenancy(tmp_path)
    create(place.publisher(place.directory()), "acme")
    place.snapshot_file.unlink()
    directory = place.directory()
    assert not directory.loaded
    publisher = place.publisher(directory)
    publisher.start()
    until(lambda: directory.loaded)
    publisher.stop()
    assert "acme" in directory.snapshot().tenants


def test_acts_at_once_are_all_kept(tmp_path: Path) -> None:
    place, _ = tenancy(tmp_path)
    publisher = place.publisher(place.directory())
    names = [f"t{number}" for number in range(12)]
    threads = [threading.Thread(target=create, args=(publisher, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = place.directory()
    assert set(names) <= set(reader.snapshot().tenants)
    assert reader.snapshot().revision == len(names)


def test_a_refused_act_publishes_nothing(tmp_path: Path) -> None:
    place, _ = tenancy(tmp_path)
    publisher = place.publisher(place.directory())
    create(publisher, "acme")
    before = place.snapshot_file.stat()
    with pytest.raises(ValueError), publisher.acting() as (store, _):
        raise ValueError(store)
    assert place.snapshot_file.stat() == before
    create(publisher, "b")
    assert place.snapshot_file.stat() != before
