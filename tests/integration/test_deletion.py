"""Series and a tenant deleted on a real server: out of answers at once, then out of the blocks."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.keyed import Keyed, T

DONE_S_MAX = 30.0


def within(condition: Callable[[], bool], why: str, seconds: float = DONE_S_MAX) -> None:
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.1)


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path / "data")
    with keyed.server:
        yield keyed


def count(keyed: Keyed, key: str, selector: str) -> int:
    status, body = keyed.get(key, "query", query=f"count({selector})", time=T)
    assert status == 200, body
    result = json.loads(body)["data"]["result"]
    return int(result[0]["value"][1]) if result else 0


def ledger(keyed: Keyed) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(keyed.get(keyed.root, "ledger", raw_scan=1)[1])["data"]
    assert told["balanced"], told
    return told


def command(keyed: Keyed, *words: str) -> str:
    environment = {**os.environ, "SLUICEWAY_KEY": keyed.root}
    http = f"--http=127.0.0.1:{keyed.server.port}"
    ran = subprocess.run(
        [sys.executable, "-m", "sluiceway.cli", *words, http],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_series_go_and_the_ledger_says_so(keyed: Keyed) -> None:
    key = keyed.tenant("acme")
    within(lambda: keyed.write(key, "old", 30) == 204, "the key works")
    assert keyed.write(key, "kept", 7) == 204
    assert command(keyed, "series", "delete", "--tenant=acme", "--match=old", "--dry-run") == (
        "30 series\n"
    )
    said = command(keyed, "series", "delete", "--tenant=acme", '--match={owner="old"}', "--yes")
    assert "deletion 1" in said
    assert (count(keyed, key, "old"), count(keyed, key, "kept")) == (0, 7)
    names = json.loads(keyed.get(key, "label/__name__/values")[1])["data"]
    assert names == ["kept"], "gone from the labels too"
    within(lambda: keyed.metric("sluiceway_deletions_pending") == 0, "done")
    told = ledger(keyed)
    assert told["deleted"] == {"acme": 30}
    (order,) = told["deletions"]
    assert (order["points"], order["series"]) == (30, 30)
    assert order["actor"].startswith("root")
    own = json.loads(keyed.get(key, "ledger")[1])["data"]
    assert own["deleted"] == {"acme": 30} and "deletions" not in own
    assert "30 points, 30 series" in command(keyed, "series", "deletions")
    keyed.server.stop()
    keyed.server.start()
    within(lambda: count(keyed, key, "kept") == 7, "after a restart")
    names = json.loads(keyed.get(key, "label/__name__/values")[1])["data"]
    assert (names, ledger(keyed)["deleted"]) == (["kept"], {"acme": 30})
    assert keyed.write(key, "old", 31) == 204
    within(lambda: count(keyed, key, "old") >= 1, "a series that comes again is there again")


def test_a_tenant_goes_and_another_may_have_its_name(keyed: Keyed) -> None:
    key = keyed.tenant("acme")
    within(lambda: keyed.write(key, "m", 20) == 204, "the key works")
    other = keyed.tenant("globex")
    within(lambda: keyed.write(other, "m", 5) == 204, "the key works")
    command(keyed, "tenant", "delete", "acme", "--yes")

    def names() -> set[str]:
        return {tenant["name"] for tenant in keyed.admin("GET", "/tenants")}

    within(lambda: "acme" not in names(), "forgotten")
    told = ledger(keyed)
    assert told["deleted"] == {"acme": 20}
    assert told["stock"]["block_rows"] + told["stock"]["buffer_rows"] == 5
    acts = keyed.admin("GET", "/audit?subject=tenant/acme")
    assert [act["act"] for act in acts[:2]] == ["tenant.forget", "tenant.delete"]
    proof = json.loads(acts[0]["after"]["proof"])
    assert [(order["points"], order["series"]) for order in proof] == [(20, 20)]
    within(lambda: keyed.write(key, "m", 1) == 401, "the key is gone")
    again = keyed.tenant("acme")
    within(lambda: keyed.write(again, "n", 3) == 204, "a new tenant of this name")
    names_of = json.loads(keyed.get(again, "label/__name__/values")[1])["data"]
    assert names_of == ["n"]
    assert count(keyed, other, "m") == 5
    assert ledger(keyed)["deleted"] == {"acme": 20}
