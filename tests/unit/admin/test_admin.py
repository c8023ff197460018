"""The admin API: acts, refusals with stable ids, declared state, its own description."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.tenants import NOW_MS, Tenancy, tenancy
from sluiceway.admin.app import AdminApp
from sluiceway.admin.policies import PolicyRoutes
from sluiceway.admin.routes import PREFIX
from sluiceway.admin.tenants import TenantRoutes
from sluiceway.clock import ManualClock
from sluiceway.tenants.model import Tenant
from sluiceway.tenants.snapshot import decode


class Api:
    """The application as the gateway calls it."""

    def __init__(self, place: Tenancy, clock: ManualClock) -> None:
        self.place, self.clock = place, clock
        self.directory = place.directory()
        self.publisher = place.publisher(self.directory)
        self.app = AdminApp(TenantRoutes(self.publisher, clock), PolicyRoutes(self.publisher))

    def reply(self, method: str, path: str, body: Any = None, query: str = "") -> tuple[int, Any]:
        data = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        answer = self.app.answer(method, PREFIX + path, query.encode(), data, "ann (1a2b3c4d)")
        return answer.status, json.loads(answer.body)

    def ask(self, method: str, path: str, body: Any = None, query: str = "") -> Any:
        status, told = self.reply(method, path, body, query)
        assert status in (200, 201, 202), told
        return told["data"]

    def refused(self, method: str, path: str, body: Any = None, query: str = "") -> str:
        status, told = self.reply(method, path, body, query)
        assert told["status"] == "error"
        assert told["id"] in told["error"]
        return f"{status} {told['id']}"

    def published(self) -> dict[str, Tenant]:
        return decode(self.place.snapshot_file.read_bytes()).tenants


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    yield Api(*tenancy(tmp_path))


def test_reading_makes_no_database(api: Api) -> None:
    assert [tenant["name"] for tenant in api.ask("GET", "/tenants")] == ["default"]
    assert [plan["name"] for plan in api.ask("GET", "/plans")] == ["standard", "unlimited"]
    assert api.ask("GET", "/audit") == []
    assert not api.place.database.exists()


def test_an_answer_means_published(api: Api) -> None:
    body = {"name": "acme", "plan": "standard", "limits": {"write": {"points_per_s": 10}}}
    made = api.ask("POST", "/tenants", body)
    assert made["effective"]["retention"]["raw_ms"] == 15 * 86_400_000
    assert api.published()["acme"].limits == {"write": {"points_per_s": 10}}
    changed = api.ask(
        "PATCH",
        "/tenants/acme",
        {
            "plan": "unlimited",
            "limits": {"query": {"series_max": 5}},
            "unset": ["write.points_per_s"],
        },
    )
    assert (changed["plan"], changed["limits"]) == ("unlimited", {"query": {"series_max": 5}})
    override = {"for_ms": 1_000, "scale": {"query.series_max": 1.4}, "reason": "launch"}
    told = api.ask("POST", "/tenants/acme/overrides", override)
    assert (told["until_ms"], told["actor"]) == (NOW_MS + 1_000, "ann (1a2b3c4d)")
    assert api.ask("GET", "/tenants/acme")["effective"]["query"]["series_max"] == 7
    assert api.directory.limits("acme").query.series_max == 7
    api.ask("DELETE", f"/tenants/acme/overrides/{told['id']}")
    assert api.directory.limits("acme").query.series_max == 5
    assert api.ask("DELETE", "/tenants/acme")["status"] == "deleting"
    assert api.published()["acme"].status == "deleting"


def test_keys_are_shown_once(api: Api) -> None:
    body = {"tenant": "default", "name": "agent", "scopes": ["write"], "for_ms": 500}
    made = api.ask("POST", "/keys", body)
    principal = api.directory.authenticate(made["key"])
    assert principal is not None
    assert principal.expires_ms == NOW_MS + 500
    assert "sha256" not in json.dumps(made["kept"])
    rotated = api.ask("POST", f"/keys/{made['kept']['id']}/rotate", {"overlap_ms": 100})
    told = json.dumps([api.ask("GET", path) for path in ("/keys", "/tenants", "/audit")])
    for key in (made["key"], rotated["key"]):
        assert key not in told
        assert key.split("_")[1] in told
    assert "sha256" not in told
    api.ask("DELETE", f"/keys/{made['kept']['id']}")
    assert [key["id"] for key in api.ask("GET", "/keys", query="tenant=default")] == [
        rotated["kept"]["id"]
    ]


def test_plans_are_put_whole_and_removed(api: Api) -> None:
    gold = {"limits": {"write": {"points_per_s": 10}}, "prices": {"points_million": "0.10"}}
    api.ask("PUT", "/plans/gold", gold)
    assert api.ask("GET", "/plans/gold")["prices"]["points_million"] == "0.10"
    api.ask("PUT", "/plans/gold", {"overage": "refuse"})
    assert api.ask("GET", "/plans/gold")["limits"] == {}
    api.ask("POST", "/tenants", {"name": "acme", "plan": "gold"})
    assert api.refused("DELETE", "/plans/gold") == "409 sluiceway-plan-in-use"
    api.ask("PATCH", "/tenants/acme", {"plan": "standard"})
    api.ask("DELETE", "/plans/gold")
    assert api.refused("GET", "/plans/gold") == "404 sluiceway-plan-unknown"


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("GET", "/nope", None, "404 sluiceway-path"),
        ("GET", "/tenants/a/b/c", None, "404 sluiceway-path"),
        ("PUT", "/tenants", {}, "405 sluiceway-method"),
        ("GET", "/tenants/nope", None, "404 sluiceway-tenant-unknown"),
        ("POST", "/tenants", b"", "400 sluiceway-admin-body"),
        ("POST", "/tenants", b"{", "400 sluiceway-admin-body"),
        ("POST", "/tenants", b"\xff", "400 sluiceway-admin-body"),
        ("POST", "/tenants", b"[" * 100_000, "400 sluiceway-admin-body"),
        ("POST", "/tenants", {"name": "a", "nope": 1}, "400 sluiceway-admin-body"),
        ("POST", "/tenants", {"name": "../a"}, "400 sluiceway-admin-body"),
        ("POST", "/tenants", {"name": "a\n"}, "400 sluiceway-admin-body"),
        ("POST", "/tenants", {"name": "a" * 65}, "400 sluiceway-admin-body"),
        ("POST", "/tenants", {"name": "a", "plan": "nope"}, "422 sluiceway-plan-unknown"),
        ("POST", "/tenants", {"name": "default"}, "409 sluiceway-tenant-exists"),
        ("PATCH", "/tenants/default", {"limits": {"write": {"x": 1}}}, "422 sluiceway-limits"),
        ("PATCH", "/tenants/default", {"unset": ["write.x"]}, "422 sluiceway-limits"),
        ("DELETE", "/tenants/default", None, "409 sluiceway-tenant-default"),
        ("POST", "/tenants/default/overrides", {"for_ms": 1}, "422 sluiceway-override-empty"),
        ("POST", "/tenants/default/overrides", {"for_ms": 10**15}, "400 sluiceway-admin-body"),
        ("DELETE", "/tenants/default/overrides/x", None, "404 sluiceway-override-unknown"),
        ("PUT", "/plans/unlimited", {}, "409 sluiceway-plan-unlimited"),
        ("PUT", "/plans/a b", {}, "422 sluiceway-name"),
        ("PUT", "/plans/a", {"prices": {"points_million": 0.1}}, "400 sluiceway-admin-body"),
        ("POST", "/keys", {"tenant": "default", "name": "k"}, "400 sluiceway-admin-body"),
        (
            "POST",
            "/keys",
            {"tenant": "default", "name": "k", "scopes": ["read"], "may_read": ["default"]},
            "422 sluiceway-key-may-read",
        ),
        (
            "POST",
            "/keys",
            {"tenant": "default", "name": "k", "scopes": ["root"]},
            "400 sluiceway-admin-body",
        ),
        (
            "POST",
            "/keys",
            {"tenant": "default", "name": "k\n", "scopes": ["read"]},
            "400 sluiceway-admin-body",
        ),
        ("DELETE", "/keys/00000000", None, "404 sluiceway-key-unknown"),
    ],
)
def test_refusals_have_stable_ids(api: Api, method: str, path: str, body: Any, told: str) -> None:
    assert api.refused(method, path, body) == told


def test_parameters_are_checked(api: Api) -> None:
    for query in ("nope=1", "limit=0", "limit=x", "limit=99999999999999", "limit=%C2%B2"):
        assert api.refused("GET", "/tenants", query=query) == "400 sluiceway-admin-parameter"
    for name in ("b", "c", "a"):
        api.ask("POST", "/tenants", {"name": name})
    page = api.ask("GET", "/tenants", query="after=a&limit=2")
    assert [tenant["name"] for tenant in page] == ["b", "c"]


def test_declared_state_is_shown_then_applied_then_there(api: Api) -> None:
    api.ask("POST", "/tenants", {"name": "old", "limits": {"write": {"points_per_s": 1}}})
    desired = {
        "plans": [{"name": "gold", "limits": {"write": {"points_per_s": 10}}}],
        "tenants": [
            {"name": "acme", "plan": "gold"},
            {"name": "old", "limits": {"write": {"points_per_s": None}}},
        ],
    }
    before = api.published()
    shown = api.ask("POST", "/apply", desired, "dry_run=1")
    assert not shown["applied"]
    assert api.published() == before
    assert [(change["subject"], change["creates"]) for change in shown["changes"]] == [
        ("plan/gold", True),
        ("tenant/acme", True),
        ("tenant/old", False),
    ]
    limit = {"name": "limits.write.points_per_s", "before": 1, "after": None}
    assert shown["changes"][2]["fields"] == [limit]
    assert shown["unmanaged"] == ["plan/standard", "plan/unlimited", "tenant/default"]
    applied = api.ask("POST", "/apply", desired)
    assert applied == {**shown, "applied": True}
    assert api.published()["acme"].plan == "gold"
    again = api.ask("POST", "/apply", desired)
    assert (again["changes"], again["applied"]) == ([], False)
    acts = [act["subject"] for act in api.ask("GET", "/audit", query="limit=3")]
    assert acts == ["tenant/old", "tenant/acme", "plan/gold"]


@pytest.mark.parametrize(
    ("desired", "told"),
    [
        ({"tenants": [{"name": "a"}, {"name": "a"}]}, "422 sluiceway-declared-twice"),
        ({"tenants": [{"name": "a", "plan": "nope"}]}, "422 sluiceway-plan-unknown"),
        ({"plans": [{"name": "p", "limits": {"x": {}}}]}, "422 sluiceway-limits"),
        ({"plans": [{"name": "unlimited", "overage": "refuse"}]}, "409 sluiceway-plan-unlimited"),
        ({"tenant": []}, "400 sluiceway-admin-body"),
    ],
)
def test_what_cannot_be_applied_is_refused_dry_as_well(api: Api, desired: Any, told: str) -> None:
    for query in ("dry_run=1", ""):
        assert api.refused("POST", "/apply", desired, query) == told
    assert not api.place.database.exists()


def test_records_that_went_away_are_not_begun_anew(api: Api, tmp_path: Path) -> None:
    api.ask("POST", "/tenants", {"name": "acme"})
    api.place.database.unlink()
    lost = Api(api.place, api.clock)
    assert lost.refused("POST", "/tenants", {"name": "b"}) == "503 sluiceway-backend"
    assert "acme" in [tenant["name"] for tenant in lost.ask("GET", "/tenants")]


def test_a_lost_snapshot_is_written_again(api: Api) -> None:
    api.ask("POST", "/tenants", {"name": "acme"})
    api.place.snapshot_file.unlink()
    again = Api(api.place, api.clock)
    assert [tenant["name"] for tenant in again.ask("GET", "/tenants")] == ["acme", "default"]
    assert "acme" in api.published()


def test_it_describes_itself(api: Api) -> None:
    status, told = api.reply("GET", "/openapi.json")
    assert (status, told["openapi"]) == (200, "3.1.0")
    create = told["paths"]["/admin/v1/tenants"]["post"]
    reference = create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = told["components"]["schemas"][reference.rpartition("/")[2]]
    assert schema["required"] == ["name"]
    references = set(_references(told))
    assert references
    for reference in references:
        assert reference.rpartition("/")[2] in told["components"]["schemas"]
    identities = [
        operation["operationId"] for path in told["paths"].values() for operation in path.values()
    ]
    assert len(identities) == len(set(identities))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
