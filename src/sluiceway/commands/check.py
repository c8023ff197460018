"""`sluiceway check DIR`: is a data directory that no server has open what its manifests say?

Invariant: nothing is changed without `--repair`, and nothing deleted with it. Status 0: whole, or
all of it mended; 1: damaged; 2: it could not be looked at.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer


def check(
    data_dir: Annotated[Path, typer.Argument(help="Data directory.")],
    mend: Annotated[
        bool, typer.Option("--repair", help="Make again what can be; say what is lost.")
    ] = False,
) -> None:
    """Read every file that the manifests name and compare its checksums; the server is stopped."""
    from sluiceway.clock import SystemClock
    from sluiceway.commands.tables import table
    from sluiceway.errors import SluicewayError
    from sluiceway.serve.directory import open_disk
    from sluiceway.services.check import check as look
    from sluiceway.services.repair import repair

    if not (data_dir / "hot").is_dir():
        print(f"sluiceway: {data_dir} is no data directory", file=sys.stderr)
        raise typer.Exit(2)
    try:
        held = open_disk(data_dir)  # Its lock, to the end.
        found = list(look(data_dir, SystemClock()))
        acts = list(repair(data_dir, held, found, SystemClock())) if mend else []
        del held
    except (SluicewayError, OSError) as error:
        print(f"sluiceway: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    parts = dict.fromkeys(finding.part for finding in found)
    counts = [(part, [f for f in found if f.part == part]) for part in parts]
    rows = (
        (part, str(len(of)), str(sum(bool(finding.wrong) for finding in of))) for part, of in counts
    )
    print("\n".join(table(("PART", "FILES", "DAMAGED"), rows)))
    wrong = [finding for finding in found if finding.wrong]
    for finding in wrong:
        print(f"{finding.path}: {finding.wrong}")
    for act in acts:
        print(f"{act.what}: {act.path}: {act.words}")
    if any(act.what == "lost" for act in acts) or (wrong and not mend):
        raise typer.Exit(1)
