"""Minutes and hours of a shard whose partition goes to another member: killed, moved, asleep.

Over a real Kafka and two members; what is asked before is answered the same by each next owner.
"""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes import waiting
from fakes.server import Server
from integration import test_tiers as tiers
from services.kafka import Kafka
from services.shard_group import House, Member
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.tiers.catalog import names_of
from sluiceway.tiers.catalog_store import follow

within = partial(waiting.within, seconds=40)
OLD = (tiers.FIRST_MS + 6 * tiers.HOUR_MS, tiers.FIRST_MS + 30 * tiers.HOUR_MS, tiers.HOUR_MS)
WHOLE = (tiers.FIRST_MS + 6 * tiers.HOUR_MS, tiers.TODAY_MS, tiers.HOUR_MS)
DAYS = (tiers.FIRST_MS + tiers.DAY_MS, tiers.TODAY_MS, tiers.DAY_MS)
RECENT_MS = tiers.NOW_MS // 60_000 * 60_000 - 120_000
QUESTIONS = (
    *((query, span) for query in tiers.EXACT[:4] for span in (OLD, WHOLE, DAYS)),
    ("sum by (service) (increase(tiers_requests_total[3d]))", (RECENT_MS, RECENT_MS, 60_000)),
    ("tiers_temperature", (RECENT_MS - 600_000, RECENT_MS, 60_000)),
)
Told = list[tuple[Any, list[str], list[str]]]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    settings = {
        "SLUICEWAY_TIERS__RAW_MS": str(tiers.DAY_MS),
        "SLUICEWAY_TIERS__DELAY_S": "0",
        "SLUICEWAY_TIERS__GRACE_S": "0",
        "SLUICEWAY_TENANTS_DIR": str(tmp_path / "tenants"),
    }
    (tmp_path / "tenants").mkdir()
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        with Kafka(tmp_path / "kafka") as kafka:
            house = House(kafka, tmp_path, "tiers", members=2, partitions=1, session_s=2.0)
            with house:
                yield house
    finally:
        os.environ.clear()
        os.environ.update(before)


def owner(house: House) -> Member:
    within(lambda: len(house.owners()) == 1, "somebody answers")
    return house.members[int(house.owners()[0][1:])]


def other(house: House, member: Member) -> Member:
    return next(each for each in house.members if each is not member)


def told(house: House) -> Told:
    """Values, tiers and warnings of every question, through the query role."""
    answers = [tiers.asked(house.query, query, *span) for query, span in QUESTIONS]
    return [
        (
            tiers.by_labels(answer),
            # Which tiers: that changes as hours are made of minutes. How exact does not.
            exactness(answer),
            answer.get("warnings", []),
        )
        for answer in answers
    ]


def exactness(answer: dict[str, Any]) -> list[str]:
    infos = (info for info in answer.get("infos", ()) if info.startswith("tiers: "))
    return sorted(info.rpartition("; ")[2] for info in infos)


def answered_by(house: House, member: Member) -> Told:
    """What is told once the query role asks this member's shard."""
    within(lambda: member.serves() == [0], "it has the partition")
    found: list[Told] = []

    def whole() -> bool:
        found[:] = [told(house)]
        return not any(warnings for _, _, warnings in found[0])

    within(whole, "whole answers")
    return found[0]


def fill_and_roll(house: House) -> Server:
    """The shard, with rolled days, and raw points that went."""
    for number in range(2):
        for name in ("tiers_requests_total", "tiers_temperature"):
            points = tiers.points(number, name.endswith("total"))
            assert house.gateway.write([(tiers.labels(name, number), points)]) == 204
    owner(house)
    (shard,) = house.shards()
    counted = "count(tiers_temperature)"
    within(lambda: shard.values(counted, RECENT_MS / 1000) == {"": 2.0}, "it is applied")
    raw_from_ms = 0
    for _ in range(20):  # until no more of raw goes: what answers a question must not change
        told = tiers.roll(shard)
        (tenant,) = (each for each in told["tenants"] if each["tenant"] == "default")
        if tenant["raw_from_ms"] == raw_from_ms:
            break
        raw_from_ms = tenant["raw_from_ms"]
    behind = "sluiceway_offsite_manifests_behind"
    within(lambda: shard.metrics()[behind] == 0, "its checkpoint is there")
    return shard


def objects_of(house: House) -> dict[str, int]:
    return {facts.name: facts.bytes for facts in EmbeddedObjects(house.objects / "0").list()}


@pytest.mark.timeout(300)
def test_whoever_has_the_partition_answers_minutes_and_hours(house: House) -> None:
    fill_and_roll(house)
    first = owner(house)
    second = other(house, first)
    before = told(house)
    assert all(values for values, _, _ in before)
    assert [infos for _, infos, _ in before[:3]] == [["exact"]] * 3, "from minutes and hours"

    first.kill()
    assert answered_by(house, second) == before
    assert not list((second.directory / "partition-00000/tiers/warm").rglob("*.swm")), "lazily"

    # A planned move back: whole answers all along.
    first.start()
    assert second.process is not None
    second.process.send_signal(signal.SIGTERM)
    while second.process.poll() is None:
        assert told(house) == before
    assert answered_by(house, first) == before

    # One that slept while the other had it is refused, and what the other goes by is untouched.
    second.start()
    first.freeze()
    assert answered_by(house, second) == before
    catalog = follow(second.directory / "partition-00000").catalog()
    named, held = names_of(catalog), objects_of(house)
    first.freeze(signal.SIGCONT)
    within(lambda: "shard_fenced" in first.log_path.read_text(), "it is refused")
    after = objects_of(house)
    assert catalog.files and {name: after[name] for name in named} == {n: held[n] for n in named}
    assert told(house) == before
