"""The shared PromQL cases: reading them, loading their data, comparing answers.

The cases stand beside the repository (`../shared/promql-cases`, `promql-compliance`; FORMAT.md
there says how they are written)."""

import json
import math
import re
from pathlib import Path
from typing import Any

from fakes.memory_reader import STALE, MemoryReader

SHARED = Path(__file__).parents[2] / "../shared"
_NUMBERS = {"NaN": math.nan, "+Inf": math.inf, "-Inf": -math.inf, "stale": STALE}


def read_cases(corpus: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Cases of one corpus and its data sets by id."""
    folder = SHARED / corpus
    with (folder / "cases.jsonl").open(encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    with (folder / "datasets.jsonl").open(encoding="utf-8") as lines:
        datasets = {entry["id"]: entry for entry in map(json.loads, lines)}
    return cases, datasets


def load(dataset: dict[str, Any] | None) -> MemoryReader:
    reader = MemoryReader()
    for part in dataset["loads"] if dataset else []:
        for series in part["series"]:
            for step, value in enumerate(series["values"]):
                time_ms = step * part["step_ms"]
                if isinstance(value, dict):
                    reader.add_histogram(series["labels"], time_ms)
                elif value is not None:
                    number = _NUMBERS[value] if isinstance(value, str) else float(value)
                    reader.add(series["labels"], time_ms, number)
    return reader


def near(expected: Any, found: Any) -> bool:
    expected = _NUMBERS[expected] if isinstance(expected, str) else float(expected)
    found = float(found)
    if math.isnan(expected) or math.isnan(found):
        return math.isnan(expected) and math.isnan(found)
    if expected == found:
        return True
    if math.isinf(expected) or math.isinf(found):
        return False
    size = abs(expected) + abs(found)
    if expected == 0 or found == 0 or size < 2.2250738585072014e-308:
        return abs(expected - found) < 1e-6 * 2.2250738585072014e-308
    return abs(expected - found) / size < 1e-6


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def _points(series: dict[str, Any]) -> dict[int, Any]:
    pairs = series.get("values", []) + ([series["value"]] if "value" in series else [])
    return {round(time * 1000): value for time, value in pairs}


def difference(case: dict[str, Any], answer: dict[str, Any]) -> str | None:
    """What is wrong with an API answer (`data` or `error`, `warnings`, `infos`), or nothing."""
    expect = case["expect"]
    if expect["result"] == "fail":
        if "error" not in answer:
            return "answered, failure expected"
        if expect.get("message", "") not in answer["error"]:
            return f"other error: {answer['error']}"
        if not re.search(expect.get("message_regex", ""), answer["error"]):
            return f"other error: {answer['error']}"
        return None
    if "error" in answer:
        return f"error: {answer['error']}"
    kind, result = answer["data"]["resultType"], answer["data"]["result"]
    if expect["result"] in ("scalar", "string"):
        if kind != expect["result"]:
            return f"{kind} for a {expect['result']}"
        same = (
            near(expect["value"], result[1]) if kind == "scalar" else expect["value"] == result[1]
        )
        return None if same else f"{result[1]} for {expect['value']}"
    if kind not in ("vector", "matrix"):
        return f"{kind} for a {expect['result']}"
    return _series_difference(case, expect, result) or _notes_difference(expect, answer)


def _series_difference(
    case: dict[str, Any], expect: dict[str, Any], result: list[dict[str, Any]]
) -> str | None:
    found = {_key(series["metric"]): _points(series) for series in result}
    if len(found) != len(result):
        return "the same labels twice"
    wanted: dict[Any, dict[int, Any]] = {}
    for series in expect.get("series", []):
        if expect["result"] == "matrix":
            wanted[_key(series["labels"])] = {
                expect["start_ms"] + step * expect["step_ms"]: value
                for step, value in enumerate(series["values"])
                if value is not None
            }
        else:
            wanted[_key(series["labels"])] = {case["at_ms"]: series["value"]}
    if set(found) != set(wanted):
        missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        return f"missing {missing[:3]} extra {extra[:3]}"
    for key, points in wanted.items():
        if set(points) != set(found[key]):
            return f"times of {key}: {sorted(found[key])[:8]} expected {sorted(points)[:8]}"
        for time_ms, value in points.items():
            if isinstance(value, dict) or not near(value, found[key][time_ms]):
                return f"{key} at {time_ms}: {found[key][time_ms]} expected {value}"
    order = [_key(series["metric"]) for series in result]
    if expect.get("ordered") and order != [_key(series["labels"]) for series in expect["series"]]:
        return f"order {order}"
    return None


def _notes_difference(expect: dict[str, Any], answer: dict[str, Any]) -> str | None:
    for word, notes in (("warn", answer["warnings"]), ("info", answer["infos"])):
        tests = expect.get(word, [])
        for test in tests:
            if not any(_note_matches(test, note) for note in notes):
                return f"{word} {test} missing in {notes}"
        if tests and not all(any(_note_matches(test, note) for test in tests) for note in notes):
            return f"{word} not expected: {notes}"
        if expect.get(f"no_{word}") and notes:
            return f"{word} not expected: {notes}"
    return None


def _note_matches(test: dict[str, str], note: str) -> bool:
    if "message" in test:
        return test["message"] == note
    return bool(re.search(test.get("message_regex", ""), note))
