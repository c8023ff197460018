"""A tenant's own time for raw points, on a real server: out of answers and blocks, and counted."""

import json
import time
from pathlib import Path
from typing import Any

from fakes.keyed import Keyed
from fakes.server import remote_write
from fakes.waiting import within

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
IN_FORCE_S_MAX = 5.0
DAYS = 4


def test_old_points_of_one_tenant_go(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SLUICEWAY_SEAL_S_MAX", "1")
    now_ms = int(time.time() * 1000)
    keyed = Keyed(tmp_path / "data")
    times = [now_ms - hour * HOUR_MS for hour in range(DAYS * 24)][::-1]
    labels = {"__name__": "m", "host": "a"}
    body = remote_write([(labels, [(time_ms, 1.0) for time_ms in times])])

    def held(key: str) -> int:
        query = {"query": "count_over_time(m[5d])", "time": now_ms / 1000}
        result = json.loads(keyed.get(key, "query", **query)[1])["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    def ledger() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(keyed.get(keyed.root, "ledger", raw_scan=1)[1])["data"]
        assert told["balanced"], told
        return told

    def refused() -> int:
        return int(ledger()["tenants"]["short"]["rejected"].get("too_old", 0))

    with keyed.server:
        keys = {name: keyed.tenant(name) for name in ("short", "long")}
        for key in keys.values():
            within(lambda key=key: keyed.call(key, "POST", "/api/v1/write", body)[0] == 204, "in")
        assert keyed.call(keyed.root, "POST", "/admin/v1/flush")[0] in (200, 204)
        assert [held(key) for key in keys.values()] == [DAYS * 24] * 2
        patch = {"limits": {"retention": {"raw_ms": DAY_MS}}}
        keyed.admin("PATCH", "/tenants/short", patch)
        within(lambda: held(keys["short"]) <= 24 + 3, "old points answer", IN_FORCE_S_MAX)
        assert held(keys["short"]) >= 24 and held(keys["long"]) == DAYS * 24
        within(lambda: keyed.metric("sluiceway_deletions_pending") == 0, "out of the blocks")
        told = ledger()
        assert told["movements"]["expired"] == DAYS * 24 - held(keys["short"])
        assert told["deleted"] == {}
        old = remote_write([(labels, [(now_ms - 2 * DAY_MS - 1, 1.0)])])
        assert keyed.call(keys["short"], "POST", "/api/v1/write", old)[0] == 400, "too old"
        assert keyed.call(keys["long"], "POST", "/api/v1/write", old)[0] == 204
        assert refused() == 1
        keyed.server.stop()
        keyed.server.start()
        within(lambda: held(keys["long"]) == DAYS * 24 + 1, "after a restart")
        assert 24 <= held(keys["short"]) <= 27
        ledger()
