"""The share of Rust in the product's lines: blank lines, comments and tests are not counted.

python benches/share.py [--max 0.55]
"""

from __future__ import annotations

import argparse
import io
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rust_lines(path: Path) -> int:
    """Lines of code before the file's test module; line comments and blanks left out."""
    count = 0
    for line in path.read_text().splitlines():
        text = line.strip()
        if text.startswith("#[cfg(test)]"):
            break
        if text and not text.startswith("//"):
            count += 1
    return count


def python_lines(path: Path) -> int:
    """Lines that hold a token of code; docstrings, comments and blanks left out."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    at_start = True
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type in skipped or token.type == tokenize.ENDMARKER:
            at_start = at_start or token.type in (tokenize.NEWLINE, tokenize.INDENT)
            continue
        docstring = token.type == tokenize.STRING and at_start
        at_start = False
        if not docstring:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max", type=float, default=0.55)
    arguments = parser.parse_args()
    sources = (ROOT / "kernels" / "src").rglob("*.rs")
    shipped = (p for p in sources if not p.stem.endswith("tests") and "tests" not in p.parts)
    rust = sum(map(rust_lines, shipped))
    python = sum(python_lines(p) for p in (ROOT / "src").rglob("*.py"))
    share = rust / max(rust + python, 1)
    limit = arguments.max
    print(f"Rust {rust:,} lines, Python {python:,} lines: {share:.1%} Rust (at most {limit:.0%})")
    return 0 if share <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
