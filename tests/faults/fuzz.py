"""The readers of foreign text that are Python's: queries, and manifests with a good checksum.

python -m tests.faults.fuzz --seconds 60   (`make fuzz` runs it behind the kernels' targets)
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
import zlib
from collections.abc import Callable

from sluiceway.errors import Corruption, TenantFault
from sluiceway.query.promql.parser import parse
from sluiceway.query.promql.printer import render
from sluiceway.tiers.manifest import (
    FORMAT_VERSION,
    BlockEntry,
    LettersEntry,
    ManifestFile,
    Movements,
    Policy,
    StateEntry,
    TableEntry,
    decode,
    encode,
)

INPUT_S_MAX = 1.0
"""Of processor time, for one input."""
QUERIES = (
    'sum by (le, handler) (rate(x_bucket{job=~"a|b", code!="5.."}[5m] offset -1h))',
    "histogram_quantile(0.99, sum without (pod) (rate(x_bucket[5m:30s] @ end())))",
    "a and on (job) group_left (x) b unless ignoring (y) c or -d ^ 2 % 3 == bool 1",
    "topk(3, count_values('v', {__name__=~'.+', \"dotted.name\"='1'})) > 1e3",
    "label_replace(up, 'a', '$1', 'job', `(.*)`) + vector(0x1f) - Inf + 5m30s",
    "quantile_over_time(0.5, m[1h:]) * scalar(time()) # a comment\n",
    '"a string \\u00e9" + {"quoted", le="0.5"}',
    "absent_over_time(m[10m]) atan2 clamp(m, 1, NaN)",
)
PIECES = (
    "(",
    ")",
    "{",
    "}",
    "[5m]",
    "[1h:1m]",
    "offset",
    "@",
    "by",
    "bool",
    "on",
    '"',
    "'",
    "-",
    ",",
)


def mutated(chance: random.Random) -> str:
    """A query cut into tokens, and put together wrongly."""
    tokens = re.findall(r'"[^"]*"|\w+|\s+|.', chance.choice(QUERIES), re.DOTALL)
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(tokens) + 1)
        match chance.randrange(6):
            case 0:
                del tokens[at : at + chance.randint(1, 4)]
            case 1:
                tokens.insert(at, chance.choice(PIECES))
            case 2:
                tokens.insert(
                    at, chr(chance.choice((0, 10, 34, 92, 0xE9, 0x2028, 0xD7FF, 0x1F600)))
                )
            case 3:
                tokens[at:at] = tokens[: chance.randint(1, 20)]
            case 4:
                tokens.insert(at, chance.choice(PIECES) * chance.randint(1, 300))
            case _:
                tokens[at:at] = re.findall(r"\w+|\s+|.", chance.choice(QUERIES))[:9]
    return "".join(tokens)


def query(chance: random.Random) -> bool:
    """A query is understood, and its canonical text again, or refused with words."""
    text = mutated(chance)
    try:
        canonical = render(parse(text))
    except TenantFault as fault:
        assert fault.status == 400 and fault.message, text
        return False
    assert render(parse(canonical)) == canonical, text
    return True


BLOCK = BlockEntry("hot/metrics/blocks/a.block", 9, 1, 2, 3, 0, -5, 5, 0, 7, "fast", [(0, 3)])
MANIFEST = ManifestFile(
    FORMAT_VERSION,
    7,
    True,
    2,
    8,
    "seal",
    1,
    [BLOCK],
    [],
    [StateEntry("s", 1, 2, 8)],
    [],
    [Policy(1, 5, table=1)],
    Movements(),
    [LettersEntry("hot/metrics/letters/a.letters", 1, 2, 3, 4, 5, 6, 7, 8)],
    [],
    [TableEntry(1, "hot/metrics/policies/a.json", 1, 2)],
)


def manifest(chance: random.Random) -> bool:
    """A manifest is read, found torn, or refused as damaged."""
    line = bytearray(encode(MANIFEST).split(b"\n")[0])
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(line) + 1)
        match chance.randrange(3):
            case 0:
                line[at : at + chance.randint(1, 20)] = b""
            case 1:
                line[at:at] = chance.choice((b"-1", b"null", b"[]", b"{", b"1e999", b"\xff", b'"'))
            case _:
                line[at : at + 1] = bytes([chance.randrange(256)])
    copy = bytes(line) + b"\ncrc32 %08x\n" % zlib.crc32(line)
    try:
        return decode(copy + copy) is not None
    except Corruption:
        return False


TARGETS: dict[str, Callable[[random.Random], bool]] = {"query": query, "manifest": manifest}


def run(name: str, seconds: float, seed: int) -> dict[str, object]:
    """Inputs from this seed on until the time is over. Raises what an input makes its target raise
    besides a refusal, with its seed."""
    target, until_s = TARGETS[name], time.monotonic() + seconds
    tried = taken = 0
    while time.monotonic() < until_s:
        began_s = time.thread_time()
        try:
            taken += target(random.Random(seed + tried))
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed + tried}") from error
        assert time.thread_time() - began_s < INPUT_S_MAX, f"{name}, seed {seed + tried}: too slow"
        tried += 1
    return {"fuzz": name, "inputs": tried, "taken": taken}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for name in TARGETS:
        print(json.dumps(run(name, arguments.seconds, arguments.seed)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
