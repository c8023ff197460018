"""The query log of a real server: each tenant its own, told by API and command, over a restart."""

import json
import time
from pathlib import Path

from typer.testing import CliRunner

from fakes.keyed import Keyed, T
from fakes.server import Server
from sluiceway.cli import add_commands, app


def test_each_tenant_reads_its_own_queries(tmp_path: Path) -> None:
    keyed = Keyed(tmp_path / "data")
    with keyed.server as server:
        keys = {name: keyed.tenant(name) for name in ("acme", "globex")}
        deadline_s = time.monotonic() + 10
        for name, key in keys.items():
            while keyed.write(key, f"{name}_m", 3) != 204:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            for text in (f"sum by (owner) ({name}_m)", f'{name}_m{{i="0"}}', "((", f"{name}_m"):
                keyed.get(key, "query", query=text, time=T)
        span = {"query": "acme_m", "start": T, "end": T + 60, "step": 15}
        assert keyed.get(keys["acme"], "query_range", **span)[0] == 200

        def asked(key: str, **given: object) -> list[dict[str, object]]:
            status, told = keyed.get(key, "query_log", **given)
            assert status == 200, told
            found: list[dict[str, object]] = json.loads(told)["data"]["queries"]
            return found

        own = asked(keys["acme"])
        assert [entry["status"] for entry in own] == [200, 200, 400, 200, 200]
        assert {entry["tenant"] for entry in own} == {"acme"}
        assert str(own[0]["key"]).startswith("acme-agent (")
        assert (own[0]["endpoint"], own[0]["step_ms"]) == ("query_range", 15_000)
        assert (own[4]["labels"], own[4]["metrics"]) == (["owner"], ["acme_m"])
        assert (own[4]["series"], own[4]["points"], own[4]["series_answered"]) == (3, 3, 1)
        assert len(asked(keys["acme"], metric="acme_m", label="i")) == 1
        for named in ("globex", "*"):
            refused, words = keyed.get(keys["acme"], "query_log", tenant=named)
            assert refused == 403 and b"(sluiceway-key-scope)" in words
        refused, words = keyed.get(keys["acme"], "ledger", raw_scan=1)
        assert refused == 403 and b"(sluiceway-key-scope)" in words
        assert len(asked(keyed.root, tenant="*")) == 9
        assert {entry["tenant"] for entry in asked(keyed.root, tenant="globex")} == {"globex"}
        assert b"globex" not in keyed.call(keys["acme"], "GET", "/metrics")[1]
        row = b'sluiceway_tenant_queries_total{tenant="acme",status="200"} '
        assert row in keyed.call(keys["acme"], "GET", "/metrics")[1]
        assert row in keyed.call(keyed.root, "GET", "/metrics")[1]
        add_commands()
        options = ["--http", f"127.0.0.1:{server.port}", "--key", keyed.root, "--tenant", "*"]
        told = CliRunner().invoke(app, ["queries", *options, "--by", "count"])
        assert told.exit_code == 0, told.output
        assert "globex_m" in told.output and "400 syntax" in told.output
    with Server(tmp_path / "data", "--auth", "keys") as again:
        keyed.server = again
        assert len(asked(keyed.root, tenant="*")) == 9
