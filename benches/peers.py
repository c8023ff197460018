"""Side by side with Debian's victoria-metrics and prometheus, by the shared harness, interleaved.

    python benches/peers.py ingest     10k and 100k series, 2,000 a request; merged too
    python benches/peers.py small      500 a request
    python benches/peers.py new        new series only (2 M)
    python benches/peers.py sizes      bytes/sample after merges, kind by kind
    python benches/peers.py queries    the harness' 23 queries, one client, and equality of answers

Data are made once under .bench-data (about 4 GB); results are JSON lines beside them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT.parent / "shared" / "bench"
DATA = Path(os.environ.get("BENCH_DATA_DIR", ROOT / ".bench-data"))
KINDS = ("int", "float2", "counter", "const", "float", "walk", "mix")
SETS = {
    "s10k": ["--series", "10000", "--steps", "4356"],
    "s100k": ["--series", "100000", "--steps", "360"],
    "s10k500": ["--series", "10000", "--steps", "2000", "--per-request", "500"],
    "n2m": ["--series", "2000000", "--steps", "1"],
    "q": ["--series", "4000", "--steps", "4760", "--dash", "2000"],
    **{f"k_{k}": ["--kind", k, "--series", "10000", "--steps", "1440"] for k in KINDS},
}


def data(name: str) -> str:
    """The path of a data set, made if it is not there."""
    DATA.mkdir(parents=True, exist_ok=True)
    path = DATA / name
    if not path.with_suffix(".json").exists():
        subprocess.run([sys.executable, HARNESS / "gen.py", path, *SETS[name]], check=True)
    return str(path)


def environment() -> dict[str, str]:
    """Where the harness finds our server and its peers."""
    own = f"{ROOT / '.venv/bin/sluiceway'} serve --data-dir {{dir}} --http 127.0.0.1:{{port}}"
    return os.environ | {
        "VM_BIN": os.environ.get("VM_BIN", shutil.which("victoria-metrics") or ""),
        "PROM_BIN": os.environ.get("PROM_BIN", shutil.which("prometheus") or ""),
        "OWN_CMD": os.environ.get("OWN_CMD", own),
        "OWN_READY": "/ready",
        "OWN_FLUSH": "POST /admin/v1/flush",
        "OWN_COMPACT": "POST /admin/v1/flush?merge=all",
    }


def bench(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, HARNESS / "bench.py", *arguments], check=True, env=environment(), cwd=DATA
    )


def ingest(sets: tuple[str, ...], systems: str, repeats: int, seconds: int, out: str) -> None:
    path = DATA / out
    path.unlink(missing_ok=True)
    names = ",".join(data(name) for name in sets)
    bench(
        *("ingest", "--systems", systems, "--data", names, "--reps", str(repeats), "--compact"),
        *("--max-seconds", str(seconds), "--dir", str(DATA / "run"), "--out", str(path)),
    )
    bench("table", str(path))


def queries(systems: str) -> None:
    answers = DATA / "answers"
    bench(
        *("queries", "--systems", systems, "--data", data("q"), "--extra", "nocache=1"),
        *("--dir", str(DATA / "run"), "--out", str(answers)),
    )
    files = [f"{answers}.{name}.0.json.gz" for name in systems.split(",")]
    query = [sys.executable, str(HARNESS / "query.py")]
    subprocess.run([*query, "table", *files], check=True)
    subprocess.run([*query, "diff", files[0], files[-1]], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("ingest", "small", "new", "sizes", "queries"))
    parser.add_argument("--systems", default="own,vm,prom")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60)
    chosen = parser.parse_args()
    if chosen.what == "ingest":
        ingest(("s10k", "s100k"), chosen.systems, chosen.repeats, chosen.seconds, "ingest.jsonl")
    elif chosen.what == "small":
        ingest(("s10k500",), chosen.systems, chosen.repeats, chosen.seconds, "small.jsonl")
    elif chosen.what == "new":
        ingest(("n2m",), chosen.systems, chosen.repeats, chosen.seconds, "new.jsonl")
    elif chosen.what == "sizes":
        sets = tuple(f"k_{kind}" for kind in KINDS)
        ingest(sets, chosen.systems, 1, 900, "sizes.jsonl")
    else:
        queries(chosen.systems)


if __name__ == "__main__":
    main()
