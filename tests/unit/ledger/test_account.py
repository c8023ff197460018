"""The ledger as the API tells it: committed and pending add up, tenants see their own."""

from typing import Any

from sluiceway.commands.accounts import ledger_lines
from sluiceway.ledger.account import account


def row(received: int, stored: int, **rejected: int) -> dict[str, Any]:
    zeros = dict.fromkeys(("folded", "dead_lettered", "discarded", "duplicate"), 0)
    return {"received": received, "stored": stored, **zeros, "rejected": rejected, "records": 1}


STATEMENT = {
    "next_sequence": 9,
    "tenants": {"a": row(10, 8, disk=2), "b": row(5, 4)},
    "committed": {"next_sequence": 7, "tenants": {"a": row(6, 6)}},
    "movements": {"replayed": 3},
    "stock": {"block_rows": 6, "buffer_rows": 6, "expected_rows": 12, "raw_scan": False},
    "deleted": {"a": 2, "b": 1},
    "deletions": [],
    "balanced": False,
}


def test_pending_is_what_no_manifest_covers_yet() -> None:
    told = account(STATEMENT, None)
    assert told["pending"]["records"] == 2
    assert told["pending"]["tenants"]["a"]["received"] == 4
    assert told["pending"]["tenants"]["a"]["rejected"] == {"disk": 2}
    assert told["pending"]["tenants"]["b"]["received"] == 5
    assert told["flow_gaps"] == {"a": 0, "b": 1} and not told["balanced"]


def test_a_tenant_sees_its_own_and_its_own_balance() -> None:
    told = account(STATEMENT, "a")
    assert told["balanced"] and "b" not in str(sorted(told["tenants"]))
    assert not {"movements", "stock", "deletions"} & set(told)
    assert told["deleted"] == {"a": 2}
    assert set(told["committed"]["tenants"]) == set(told["pending"]["tenants"]) == {"a"}


def test_the_command_says_what_is_wrong() -> None:
    metrics = 'sluiceway_write_refused_unread_total{reason="sluiceway-key-unknown"} 4\n'
    lines = ledger_lines(account(STATEMENT, None), metrics)
    assert lines[-1] == "NOT BALANCED"
    assert "requests refused unread since the start: sluiceway-key-unknown 4" in lines
    assert any("12 expected" in line for line in lines)
