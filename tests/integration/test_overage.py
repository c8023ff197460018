"""What a plan includes, and what happens past it, on a real server: refused, or charged."""

import json
from pathlib import Path
from typing import Any

from fakes.keyed import Keyed
from fakes.waiting import within

INCLUDED = 1_000
SERIES = 40
IN_FORCE_S_MAX = 10.0


def test_past_what_is_included(tmp_path: Path) -> None:
    keyed = Keyed(tmp_path / "data")
    settings = tmp_path / "settings.toml"
    settings.write_text("[cost]\ninterval_s = 1.0\n")
    keyed.server.flags = (*keyed.server.flags, "--config", str(settings))
    with keyed.server:
        for overage in ("refuse", "charge"):
            keyed.admin(
                "PUT",
                f"/plans/{overage}",
                {
                    "included": {"points_per_month": INCLUDED},
                    "prices": {"points_million": "1000000"},
                    "overage": overage,
                },
            )
        keys = {plan: keyed.tenant(plan, plan=plan) for plan in ("refuse", "charge")}
        for key in keys.values():
            within(lambda key=key: keyed.write(key, "up") == 204, "the key works")
        noted = keyed.server.directory / "cost" / "volumes.json"
        within(lambda: noted.exists() and b'"refuse"' in noted.read_bytes(), "noted")
        sent = {"refuse": 1, "charge": 1}

        def send(plan: str) -> int:
            status = keyed.write(keys[plan], "m", SERIES)
            sent[plan] += SERIES if status == 204 else 0
            return status

        while sent["refuse"] < INCLUDED:
            assert send("refuse") == 204 and send("charge") == 204
        within(lambda: send("refuse") == 429, "not refused", IN_FORCE_S_MAX)
        status, body = keyed.call(keys["refuse"], "POST", "/api/v1/write", b"")
        words = body.decode()
        assert status == 429 and words.endswith("(sluiceway-over-volume)"), words
        assert "points_per_month" in words and "1,000" in words
        assert send("charge") == 204
        ledger = json.loads(keyed.get(keyed.root, "ledger", raw_scan=1)[1])["data"]
        assert ledger["balanced"]
        assert ledger["tenants"]["refuse"]["received"] == sent["refuse"], "refused ones were unread"
        page = keyed.call(keyed.root, "GET", "/metrics")[1].decode()
        refused = 'sluiceway_tenant_refused_total{tenant="refuse",reason="sluiceway-over-volume"}'
        assert refused in page

        def charges() -> dict[str, Any]:
            report = json.loads(keyed.get(keyed.root, "cost", by="plan")[1])["data"]
            return {one["tenant"]: one for one in report["plans"]}

        within(lambda: charges()["charge"]["charge"] > 0, "charged")
        assert charges()["refuse"]["charge"] == 0
        keyed.admin("PATCH", "/tenants/refuse", {"plan": "charge"})
        within(lambda: send("refuse") == 204, "another plan lets it in", IN_FORCE_S_MAX)
