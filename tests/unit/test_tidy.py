"""The repository lints itself: sizes, names, dead links, what must never be committed."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 80
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:work|farm|root)/")


def tracked(*suffixes: str) -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed]
    return [p for p in paths if p.suffix in suffixes and p.is_file()]


def test_no_file_grows_into_a_god_file() -> None:
    long = {
        str(p.relative_to(ROOT)): count
        for p in tracked(".py", ".rs")
        if (count := len(p.read_text().splitlines())) > FILE_LINES_MAX
    }
    assert not long, f"longer than {FILE_LINES_MAX} lines: {long}"


def test_functions_fit_a_screen() -> None:
    long = []
    for path in tracked(".py"):
        if not path.is_relative_to(ROOT / "src"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} ({size})")
    assert not long, long


def test_no_file_is_named_after_nothing() -> None:
    vague = [str(p) for p in tracked(".py", ".rs") if p.stem in BANNED_NAMES]
    assert not vague


def test_every_module_says_what_it_owns() -> None:
    silent = []
    for path in tracked(".py"):
        text = path.read_text()
        silent_module = bool(text.strip()) and ast.get_docstring(ast.parse(text)) is None
        if path.is_relative_to(ROOT / "src") and silent_module:
            silent.append(str(path.relative_to(ROOT)))
    for path in tracked(".rs"):
        if path.is_relative_to(ROOT / "kernels" / "src") and not path.read_text().startswith("//!"):
            silent.append(str(path.relative_to(ROOT)))
    assert not silent, silent


def test_no_leftovers() -> None:
    marks = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(".py", ".rs", ".md", ".toml")
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "FIXME" in line or "TODO" in line or MACHINE_PATHS.search(line)
    ]
    assert not marks, marks


def test_markdown_links_lead_somewhere() -> None:
    dead = []
    for path in tracked(".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                dead.append(f"{path.relative_to(ROOT)} -> {target}")
    assert not dead, dead


def test_no_lock_files() -> None:
    locks = [p for p in tracked(".lock") if p.name in {"uv.lock", "Cargo.lock"}]
    assert not locks
