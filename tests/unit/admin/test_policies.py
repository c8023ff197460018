"""The policy's routes: versions that never change, refusals with their place, rollback, diff."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.tenants import tenancy
from sluiceway.tenants.model import PolicyInForce
from sluiceway.tenants.snapshot import decode
from unit.admin.test_admin import Api

FIRST = b"""
stage: observe
budgets:
  - {name: a, metric: http_, match: prefix, active_series: {hard: 10}, action: drop}
  - {name: b, new_series_per_hour: {soft: 5}}
"""
SECOND = (
    b'{"stage": "enforce", "budgets": [{"name": "a", "metric": "http_", "match": "prefix", '
    + (b'"active_series": {"hard": 20}, "action": "drop"}]}')
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    yield Api(*tenancy(tmp_path))


def in_force(api: Api) -> PolicyInForce | None:
    return decode(api.place.snapshot_file.read_bytes()).policy


def test_versions_are_published_and_stay(api: Api) -> None:
    assert api.ask("GET", "/policies") == []
    first = api.ask("POST", "/policies", FIRST)
    assert (first["version"], first["author"]) == (1, "ann (1a2b3c4d)")
    assert first["document"] == FIRST.decode()
    second = api.ask("POST", "/policies", SECOND)
    published = in_force(api)
    assert published is not None
    assert (published.version, published.policy) == (2, second["policy"])
    back = api.ask("POST", "/policies/1/rollback")
    assert (back["version"], back["rolled_back_to"]) == (3, 1)
    assert (back["policy"], back["document"]) == (first["policy"], first["document"])
    assert api.ask("GET", "/policies/1") == first
    lines = api.ask("GET", "/policies")
    told = [(line["version"], line["stage"], line["budgets"]) for line in lines]
    assert told == [(3, "observe", 2), (2, "enforce", 1), (1, "observe", 2)]
    assert [line["version"] for line in api.ask("GET", "/policies", query="before=3&limit=1")] == [
        2
    ]
    acts = api.ask("GET", "/audit")
    assert [act["act"] for act in acts] == ["policy.rollback", "policy.apply", "policy.apply"]
    again = Api(api.place, api.clock)
    assert again.ask("GET", "/policies/3") == back


def test_what_is_in_force_already_makes_no_version(api: Api) -> None:
    first = api.ask("POST", "/policies", FIRST)
    assert not first["unchanged"]
    again = api.ask("POST", "/policies", FIRST, query="if_version=1")
    assert again == first | {"unchanged": True}
    assert [act["act"] for act in api.ask("GET", "/audit")] == ["policy.apply"]
    staged = api.ask("POST", "/policies", FIRST.replace(b"observe", b"enforce"))
    assert (staged["version"], staged["unchanged"]) == (2, False)
    # What was in force once is no longer: it is a change.
    assert api.ask("POST", "/policies", FIRST)["version"] == 3
    fault = api.refused("POST", "/policies", FIRST, query="if_version=2")
    assert fault == "409 sluiceway-policy-changed"


def test_a_version_is_made_only_after_the_one_that_was_seen(api: Api) -> None:
    assert api.ask("POST", "/policies", FIRST, query="if_version=0")["version"] == 1
    assert api.ask("POST", "/policies", SECOND, query="if_version=1")["version"] == 2
    for path, body in (("/policies", FIRST), ("/policies/1/rollback", None)):
        for seen in (0, 1, 3):
            fault = api.refused("POST", path, body, query=f"if_version={seen}")
            assert fault == "409 sluiceway-policy-changed"
    assert api.refused("POST", "/policies", FIRST, query="if_version=x").startswith("400")
    assert len(api.ask("GET", "/policies")) == 2
    assert api.ask("POST", "/policies/1/rollback", query="if_version=2")["version"] == 3


def test_a_diff_names_budgets_and_fields(api: Api) -> None:
    api.ask("POST", "/policies", FIRST)
    api.ask("POST", "/policies", SECOND)
    told: dict[str, Any] = api.ask("GET", "/policies/1/diff/2")
    assert told["removed"] == ["budget/b"]
    fields = {
        (change["subject"], field["name"]): (field["before"], field["after"])
        for change in told["changes"]
        for field in change["fields"]
    }
    assert fields == {
        ("policy", "stage"): ("observe", "enforce"),
        ("budget/a", "active_series.hard"): (10, 20),
    }
    other = api.ask("GET", "/policies/2/diff/1")
    made = [change["subject"] for change in other["changes"] if change["creates"]]
    assert made == ["budget/b"]


def test_what_is_unsound_makes_no_version(api: Api) -> None:
    for body in (b"", b"stage: loud", b"budgets: [{name: a}]", b"stage: [", b"a: &x 1\nb: *x"):
        assert api.refused("POST", "/policies", body) == "400 sluiceway-policy-invalid", body
    aimless = b"budgets: [{name: a, active_series: {hard: 1}, action: strip}]"
    assert api.refused("POST", "/policies", aimless) == "400 sluiceway-policy-invalid"
    assert api.refused("POST", "/policies", b"\xff") == "400 sluiceway-admin-body"
    told = api.reply("POST", "/policies", b"stage: enforce\nbudgets: 3")[1]
    assert "line 2, column 10" in told["error"]
    for version in ("1", "0", "x", "\u0661", "9" * 20):
        unknown = "404 sluiceway-policy-unknown"
        assert api.refused("GET", f"/policies/{version}") == unknown
        assert api.refused("POST", f"/policies/{version}/rollback") == unknown
    assert api.ask("GET", "/policies") == []


def test_a_database_of_schema_1_gains_policies(api: Api) -> None:
    api.ask("POST", "/tenants", {"name": "acme"})
    with sqlite3.connect(api.place.database) as database:
        database.execute("DROP TABLE policies")
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    again = Api(api.place, api.clock)
    assert again.ask("POST", "/policies", FIRST)["version"] == 1
    assert again.ask("GET", "/tenants/acme")["name"] == "acme"
