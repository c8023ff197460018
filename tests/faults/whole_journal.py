"""`sluiceway serve` that keeps its journal whole, and each policy that it was about to commit.

    python -m tests.faults.whole_journal KEPT_FILE DATA_DIR HOST:PORT

All else is the shipped server: seals are committed, only what they would remove of the journal
stays. KEPT_FILE gets a line of JSON a change: its policies, its version, its table.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import msgspec

from sluiceway.processor.checkpoint import Checkpointer
from sluiceway.tiers.manifest import Policy


def keep(kept: Path) -> None:
    """From now on, in this process."""
    change = Checkpointer.change_policies

    def change_policies(
        self: Checkpointer, policies: tuple[Policy, ...], version: int, table: bytes
    ) -> None:
        told = {
            "policies": msgspec.to_builtins(policies),
            "version": version,
            "table": base64.b64encode(table).decode(),
        }
        with kept.open("a") as file:
            file.write(json.dumps(told) + "\n")
            file.flush()
            os.fsync(file.fileno())
        change(self, policies, version, table)

    Checkpointer.change_policies = change_policies  # type: ignore[method-assign]
    Checkpointer.truncate = lambda self: None  # type: ignore[method-assign]


def main() -> None:
    from sluiceway import config
    from sluiceway.wiring import serve

    kept, data_dir, http = sys.argv[1:]
    keep(Path(kept))
    serve(config.load(None, data_dir=Path(data_dir), http=http))


if __name__ == "__main__":
    main()
