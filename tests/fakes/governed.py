"""A real server under a policy: the policy is put into its directory while it is down."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from fakes.server import Server
from sluiceway.clock import SystemClock
from sluiceway.governance.policy import Action, Budget, LetterQuota, Limit, Match, Policy, Stage
from sluiceway.processor.hot_shard import HotShard
from sluiceway.serve.directory import open_disk
from sluiceway.tiers.hot import HotConfig

NO_POLICY = Policy()


def at_most(series: int, prefix: str = "boom_", quota: LetterQuota | None = None) -> Policy:
    """Series whose metric begins with `prefix`, past so many, are refused."""
    limit = Limit(hard=series)
    budget = Budget(
        "boom", metric=prefix, match=Match.PREFIX, active_series=limit, action=Action.DROP
    )
    return Policy(Stage.ENFORCE, (budget,), quota or LetterQuota())


def put_policy(directory: Path, policy: Policy) -> None:
    """Of a server that is down; in a process of its own, which lets the directory go."""
    text = msgspec.json.encode(policy).decode()
    path = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-m", "fakes.governed", str(directory), text]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)


def main(directory: str, text: str) -> None:
    hot = HotShard(open_disk(Path(directory)), {}, HotConfig(), SystemClock())
    hot.load()
    hot.change_policy(msgspec.json.decode(text, type=Policy))


def deadletters(server: Server, path: str = "", method: str = "GET", **query: Any) -> Any:
    """`data` of an answer under /api/v1/deadletters."""
    target = f"/api/v1/deadletters{path}?{urlencode(query, doseq=True)}"
    status, body = server.call(method, target)
    told = json.loads(body)
    assert status == 200, told
    return told["data"]


if __name__ == "__main__":
    main(*sys.argv[1:])
